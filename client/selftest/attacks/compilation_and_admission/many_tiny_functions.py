"""Thirty thousand functions that do nothing.

Source: compile-time attacks. Expected: facts or a typed refusal, in bounded time.
"""

from client.selftest.attack import Attack
from client.selftest.compiling import function, judged_in_time, module
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    await judged_in_time(stage, module(*[function(b"")] * 30_000))


ATTACK = Attack(run=_run)
