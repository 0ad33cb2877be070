"""A caller whose own deadline is far below the template's limit: its guest must not outlive it.

Source: gRPC deadlines propagate. Expected: DEADLINE or DEADLINE_EXCEEDED, soon.
"""

import time

from client.selftest.attack import Attack, Guest, fails
from client.selftest.guests import SLEEP_FOR_EVER
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    started = time.perf_counter()
    seen = await stage.invoke(timeout_s=0.3)
    fails("DEADLINE", "DEADLINE_EXCEEDED").check(seen)
    took = time.perf_counter() - started
    stage.require(took < 2.0, f"expected an end at the caller's deadline of 0.3 s, got {took:.1f} s")


ATTACK = Attack(guests={"guest": Guest(wat=SLEEP_FOR_EVER, limits={"wall_ms": 30_000})}, run=_run)
