"""A guest that opens streams of a model which says nothing, and leaves them open.

Source: CWE-772. Expected: a fifth is refused, and with the invocation the node's connections end too.
"""

import asyncio

from client.selftest.attack import Attack
from client.selftest.model_questions import FORGET, ask, asker
from client.selftest.stage import Stage

_STREAMS_MAX = 4
_ENDS_WITHIN_S = 5.0
_POLL_S = 0.05


async def _run(stage: Stage) -> None:
    found = await ask(stage, *[(FORGET, "silent", None)] * (_STREAMS_MAX + 1))
    kinds = [each["kind"] for each in found]
    stage.require(kinds == [""] * _STREAMS_MAX + ["quota"], f"expected {_STREAMS_MAX} streams, got {found}")
    loop = asyncio.get_running_loop()
    until = loop.time() + _ENDS_WITHIN_S
    while stage.model.open:
        stage.require(loop.time() < until, f"expected no connection to be left, got {stage.model.open}")
        await asyncio.sleep(_POLL_S)


ATTACK = Attack(guests={"guest": asker("silent")}, run=_run)
