"""SIGABRT for a worker with invocations in it, as of a panic of the engine.

Source: CVE-2024-47763. Expected: CRASH for those, and the next invocation gets a new worker.
"""

import signal

from client.selftest.attack import Attack
from client.selftest.deaths import GUESTS, die_of
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    await die_of(stage, signal.SIGABRT)


ATTACK = Attack(guests=GUESTS, run=_run, kills_worker=True)
