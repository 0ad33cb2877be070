"""Hundreds of invocations at once, over one connection.

Source: CWE-770. Expected: each is answered or refused with a typed error; nobody gets another one's answer, and the
neighbours are answered. While it lasts a burst shares the node's front with everybody, so nobody is timed.
"""

import asyncio

from client.selftest.attack import Attack, Guest, Timed
from client.selftest.guests import ECHO
from client.selftest.stage import Stage

_TYPED = {"OK", "CONCURRENCY_EXHAUSTED", "CALLS_EXHAUSTED", "DEADLINE", "DEADLINE_EXCEEDED"}


async def _run(stage: Stage) -> None:
    seen = await asyncio.gather(*(stage.invoke(text=str(number)) for number in range(150)))
    reasons = {each.reason for each in seen}
    stage.require(reasons <= _TYPED, f"expected answers or typed refusals, got {reasons - _TYPED}")
    wrong = [number for number, each in enumerate(seen) if each.output not in {None, str(number)}]
    stage.require(not wrong, f"expected every answer to be its own, got {len(wrong)} of others")


ATTACK = Attack(guests={"guest": Guest(wat=ECHO)}, run=_run, timed=Timed.NOBODY)
