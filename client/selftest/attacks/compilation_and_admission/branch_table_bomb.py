"""Branch tables with hundreds of thousands of targets.

Source: compile-time attacks. Expected: facts or a typed refusal, in bounded time.
"""

from client.selftest.attack import Attack
from client.selftest.compiling import function, judged_in_time, leb128, module
from client.selftest.stage import Stage

_TARGETS = 200_000


async def _run(stage: Stage) -> None:
    table = b"\x02\x40\x41\x00\x0e" + leb128(_TARGETS) + bytes(_TARGETS + 1) + b"\x0b"
    await judged_in_time(stage, module(function(table)))


ATTACK = Attack(run=_run)
