"""A service whose answer never ends.

Source: CWE-400. Expected: a typed refusal at the limit of bytes; the node does not hold them.
"""

from client.selftest.attack import Attack
from client.selftest.requests import FREE, requester, require_refused
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    await require_refused(stage, "/free/endless", ["quota", "failed"])


ATTACK = Attack(guests={"guest": requester(FREE)}, run=_run)
