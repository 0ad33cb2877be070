"""A service that sends a byte now and then.

Source: CWE-400 (slow loris). Expected: the invocation ends at its deadline, or the agent is told before.
"""

import json

from client.selftest.attack import Attack, fails
from client.selftest.requests import FREE, requester
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    seen = await stage.invoke(text=json.dumps({"path": "/free/slow"}))
    if seen.output is not None:
        kind = json.loads(seen.output)["kind"]
        stage.require(kind in {"budget", "failed"}, f"expected budget, got {seen.output[:200]}")
    else:
        fails("DEADLINE").check(seen)


ATTACK = Attack(guests={"guest": requester(FREE, wall_ms=1_000)}, run=_run)
