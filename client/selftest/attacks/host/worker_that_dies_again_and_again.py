"""A template under which workers keep dying.

Source: CWE-400. Expected: it is quarantined for its tenant; the same template serves the others.
"""

import asyncio
import signal

from client.selftest.attack import Answers, Attack
from client.selftest.deaths import GUESTS, kill_worker_of
from client.selftest.stage import OTHER, Stage

_DEATHS_MAX = 8


async def _run(stage: Stage) -> None:
    tenant = "crash-loop"
    seen = await stage.invoke("echo", "warm", tenant=tenant)
    for _ in range(_DEATHS_MAX):
        dying = asyncio.ensure_future(stage.invoke("sleeper", tenant=tenant))
        killing = asyncio.ensure_future(kill_worker_of(stage, tenant, signal.SIGKILL))
        seen = await dying
        killing.cancel()
        if seen.reason != "CRASH":
            break
    stage.require(seen.reason in {"TEMPLATE_QUARANTINED", "WORKER_UNAVAILABLE"}, f"expected a refusal, got {seen}")
    Answers("still here").check(await stage.invoke("echo", "still here", tenant=OTHER))


ATTACK = Attack(guests=GUESTS, run=_run, kills_worker=True)
