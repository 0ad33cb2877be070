"""An import and an export with names of a megabyte.

Source: CWE-400. Expected: facts or a typed refusal whose text is short.
"""

from client.selftest.attack import Attack
from client.selftest.compiling import PREAMBLE, judged_in_time, leb128, section
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    name = leb128(1 << 20) + b"n" * (1 << 20)
    await judged_in_time(
        stage, PREAMBLE + section(1, b"\x01\x60\x00\x00") + section(2, b"\x01" + name * 2 + b"\x00\x00")
    )


ATTACK = Attack(run=_run)
