"""A worker that was taken over and does not read what it is sent.

Source: CWE-400. Expected: the node's loop is not blocked; the invocations end at their deadline.
"""

import asyncio
from dataclasses import replace

from client.selftest.attack import Attack
from client.selftest.stage import Stage
from client.selftest.taken_over import LIMITS, NoHost, request, taken_over
from sandbox.outcome import FailureKind


async def _run(stage: Stage) -> None:
    async with taken_over() as hostile:
        await hostile.load()
        wanted = replace(request(), input=b"x" * 65_536, limits=replace(LIMITS, wall_ms=100))
        outcomes = await asyncio.gather(*(hostile.worker.invoke(wanted, NoHost()) for _ in range(50)))
        kinds = {outcome.failure.kind for outcome in outcomes if outcome.failure}
        stage.require(kinds <= {FailureKind.DEADLINE, FailureKind.CRASH}, f"expected DEADLINE, got {kinds}")
        stage.require(
            len([one for one in outcomes if one.failure]) == 50, "expected no answer of a worker that is deaf"
        )


ATTACK = Attack(run=_run)
