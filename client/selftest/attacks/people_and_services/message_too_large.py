"""A request larger than any message may be.

Source: CWE-400. Expected: a typed refusal; it is not kept in memory.
"""

from client.selftest.attack import Attack, Guest, fails
from client.selftest.guests import ECHO
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    seen = await stage.invoke(text="x" * (9 << 20))
    fails("MESSAGE_TOO_LARGE", "CALLS_EXHAUSTED", "RESOURCE_EXHAUSTED", "INPUT").check(seen)


ATTACK = Attack(guests={"guest": Guest(wat=ECHO)}, run=_run)
