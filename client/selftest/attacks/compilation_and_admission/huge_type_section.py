"""Two hundred thousand types.

Source: compile-time attacks. Expected: facts or a typed refusal, in bounded time.
"""

from client.selftest.attack import Attack
from client.selftest.compiling import PREAMBLE, judged_in_time, leb128, section
from client.selftest.stage import Stage

_TYPES = 200_000


async def _run(stage: Stage) -> None:
    await judged_in_time(stage, PREAMBLE + section(1, leb128(_TYPES) + b"\x60\x00\x00" * _TYPES))


ATTACK = Attack(run=_run)
