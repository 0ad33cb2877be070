"""SIGSEGV for a worker with invocations in it, as of a bug in the engine.

Source: CVE-2022-24791. Expected: CRASH for those, and the next invocation gets a new worker.
"""

import signal

from client.selftest.attack import Attack
from client.selftest.deaths import GUESTS, die_of
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    await die_of(stage, signal.SIGSEGV)


ATTACK = Attack(guests=GUESTS, run=_run, kills_worker=True)
