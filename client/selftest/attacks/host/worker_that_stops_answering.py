"""A worker that is stopped: it says nothing, and it does not die.

Source: CWE-833. Expected: DEADLINE, the worker is killed after a grace, and the next invocation gets a new one.
"""

import signal

from client.selftest.attack import Attack
from client.selftest.deaths import GUESTS, die_of
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    await die_of(stage, signal.SIGSTOP, reasons=("DEADLINE", "CRASH"), wall_ms=1_500)


ATTACK = Attack(guests=GUESTS, run=_run, kills_worker=True)
