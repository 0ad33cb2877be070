"""The node's front and broker stopped for two seconds, while guests wait for host calls and callers for answers.

Source: CWE-833. Expected: no worker takes it for dead or dies of it; afterwards every invocation ends as it should, by
its answer or by its deadline.
"""

import asyncio
import os
import signal

from client.selftest.attack import Answers, Attack, Guest, Timed
from client.selftest.guests import ECHO, KV, SLEEP_FOR_EVER, ask
from client.selftest.stage import Stage

_STOPPED_S = 2.0
_BEFORE_S = 0.3
_GUESTS = {
    "caller": Guest(wat=ask(b"kv.list", b"{}"), grants=KV, limits={"wall_ms": 10_000}),
    "sleeper": Guest(wat=SLEEP_FOR_EVER, limits={"wall_ms": 1_000}),
    "echo": Guest(wat=ECHO),
}


async def _run(stage: Stage) -> None:
    callers = [asyncio.ensure_future(stage.invoke("caller")) for _ in range(20)]
    sleepers = [asyncio.ensure_future(stage.invoke("sleeper")) for _ in range(5)]
    await asyncio.sleep(_BEFORE_S)
    os.kill(stage.node.pid, signal.SIGSTOP)
    try:
        late = asyncio.ensure_future(stage.invoke("echo", "asked meanwhile"))
        await asyncio.sleep(_STOPPED_S)
    finally:
        os.kill(stage.node.pid, signal.SIGCONT)
    Answers("asked meanwhile").check(await late)
    for seen in await asyncio.gather(*callers):
        ended = seen.reason == "DEADLINE" or (seen.output or "").startswith('{"ok":')
        stage.require(ended, f"expected an answer or DEADLINE, got {seen}")
    for seen in await asyncio.gather(*sleepers):
        stage.require(seen.reason == "DEADLINE", f"expected DEADLINE, got {seen}")
    Answers("still here").check(await stage.invoke("echo", "still here"))


ATTACK = Attack(guests=_GUESTS, run=_run, timed=Timed.NOBODY)
