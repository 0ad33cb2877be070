"""A hundred thousand imports with long names: whoever prints or compares them pays for each.

Source: CWE-400. Expected: facts or a typed refusal, in bounded time.
"""

from client.selftest.attack import Attack
from client.selftest.compiling import PREAMBLE, judged_in_time, leb128, section
from client.selftest.stage import Stage

_IMPORTS = 100_000


async def _run(stage: Stage) -> None:
    one = b"\x03env" + b"\x40" + b"f" * 64 + b"\x00\x00"
    types = section(1, b"\x01\x60\x00\x00")
    await judged_in_time(stage, PREAMBLE + types + section(2, leb128(_IMPORTS) + one * _IMPORTS))


ATTACK = Attack(run=_run)
