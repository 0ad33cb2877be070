"""Compiled code in the node's cache, changed before it starts: native code that nobody reviewed.

Source: a flipped byte in compiled code was loaded and ran. Expected: it is compiled anew, and the answer is right.
"""

import asyncio

from client.selftest.attack import Attack
from client.selftest.forgeries import flip, forge
from client.selftest.stage import Stage
from client.selftest.starts import answer_of, serving


async def _run(stage: Stage) -> None:
    small = forge(stage)
    await small.taken(small.first)
    async with serving(small.node):
        await answer_of(small.node, "once")
    cached = [path for path in (small.node.store / "compiled").rglob("*") if path.is_file()]
    stage.require(bool(cached), "expected compiled code in the cache")
    for path in cached:
        await asyncio.to_thread(flip, path, at=0.7)
    async with serving(small.node):
        seen = await answer_of(small.node, "again")
    stage.require(seen == "again", f"expected the right answer, got {seen!r}")


ATTACK = Attack(run=_run)
