"""A function with fifty thousand blocks inside each other.

Source: CWE-674. Expected: facts or a typed refusal; the compiler's stack is not the node's.
"""

from client.selftest.attack import Attack
from client.selftest.compiling import function, judged_in_time, module
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    await judged_in_time(stage, module(function(b"\x02\x40" * 50_000 + b"\x0b" * 50_000)))


ATTACK = Attack(run=_run)
