"""Several guests that spin at the same time in one worker.

Source: CWE-400. Expected: FUEL or DEADLINE for each; other tenants do not notice.
"""

import asyncio

from client.selftest.attack import Attack, Guest, Timed, fails
from client.selftest.guests import forever
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    for seen in await asyncio.gather(*(stage.invoke() for _ in range(10))):
        fails("FUEL", "DEADLINE").check(seen)


ATTACK = Attack(guests={"guest": Guest(wat=forever(""))}, run=_run, timed=Timed.OTHER_TENANTS)
