"""One function of two megabytes of instructions: compilers are not linear in the length of a function.

Source: CVE-2023-27477 and other compile-time attacks. Expected: facts or a typed refusal, in bounded time.
"""

from client.selftest.attack import Attack
from client.selftest.compiling import function, judged_in_time, module
from client.selftest.stage import Stage

_STEP = b"\x41\x01\x1a"  # i32.const 1, drop


async def _run(stage: Stage) -> None:
    await judged_in_time(stage, module(function(_STEP * 700_000)))


ATTACK = Attack(run=_run)
