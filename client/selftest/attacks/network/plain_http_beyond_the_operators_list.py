"""An origin without TLS that the operator did not list.

Source: CWE-319. Expected: denied; nothing is connected to.
"""

from client.selftest.attack import Attack
from client.selftest.requests import FREE, requester, require_refused
from client.selftest.stage import Stage

_GRANT = {**FREE, "origin": "http://example.com"}


async def _run(stage: Stage) -> None:
    await require_refused(stage, "/free/plain", ["denied"])


ATTACK = Attack(guests={"guest": requester(_GRANT)}, run=_run)
