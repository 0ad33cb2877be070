"""A host call whose service takes the request and never answers: no fuel is burnt, and nothing comes to wait for.

Source: CWE-400. Expected: the invocation ends at its deadline, or the agent is told before.
"""

import json
import time

from client.selftest.attack import Attack, fails
from client.selftest.requests import FREE, requester
from client.selftest.stage import Stage

_WALL_MS = 1_000
_ENDED_WITHIN_S = 6.0


async def _run(stage: Stage) -> None:
    before, started = len(stage.service.received), time.monotonic()
    seen = await stage.invoke(text=json.dumps({"path": "/free/silent"}))
    took = time.monotonic() - started
    stage.require(len(stage.service.received) > before, "expected the request to arrive at the service")
    if seen.output is not None:
        kind = json.loads(seen.output)["kind"]
        stage.require(kind in {"budget", "failed"}, f"expected budget, got {seen.output[:200]}")
    else:
        fails("DEADLINE").check(seen)
    stage.require(took < _ENDED_WITHIN_S, f"expected an end soon after {_WALL_MS} ms, got one after {took:.1f} s")


ATTACK = Attack(guests={"guest": requester(FREE, wall_ms=_WALL_MS)}, run=_run)
