"""A caller that asks for more fuel, memory, time and output than the template has.

Source: CWE-770. Expected: the template's limits hold: a caller can only narrow them.
"""

from client.selftest.attack import Attack, Guest, fails
from client.selftest.guests import forever
from client.selftest.stage import Stage
from client.values import Limits


async def _run(stage: Stage) -> None:
    wide = Limits(fuel=1 << 62, wall_ms=86_400_000, memory_bytes=1 << 40, output_bytes=1 << 30, host_calls=1 << 30)
    seen = await stage.invoke(limits=wide)
    fails("FUEL", "INVALID_REQUEST").check(seen)


ATTACK = Attack(guests={"guest": Guest(wat=forever(""), limits={"fuel": 20_000_000})}, run=_run)
