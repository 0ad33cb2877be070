"""Origins whose names resolve to this host: the node's own ports, and whatever else listens on loopback.

Source: CWE-918. Expected: denied: every address of a name must be globally routable, or listed by the operator.
"""

from client.selftest.attack import Attack
from client.selftest.requests import FREE, requester, require_refused
from client.selftest.stage import Stage

_GRANT = {**FREE, "origin": "https://localhost:8443"}


async def _run(stage: Stage) -> None:
    await require_refused(stage, "/free/plain", ["denied"])


ATTACK = Attack(guests={"guest": requester(_GRANT)}, run=_run)
