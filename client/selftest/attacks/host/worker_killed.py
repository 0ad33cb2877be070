"""SIGKILL for a worker with invocations in it.

Source: the kernel's memory killer. Expected: CRASH for those, and the next invocation gets a new worker.
"""

import signal

from client.selftest.attack import Attack
from client.selftest.deaths import GUESTS, die_of
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    await die_of(stage, signal.SIGKILL)


ATTACK = Attack(guests=GUESTS, run=_run, kills_worker=True)
