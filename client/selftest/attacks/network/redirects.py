"""A service that redirects to the metadata service, and to a path that the grant does not permit.

Source: CWE-601, CWE-918. Expected: the guest sees the 3xx; nobody follows it.
"""

from client.selftest.attack import Attack
from client.selftest.requests import FREE, ask, requester
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    for path, status in (("/free/redirect", 302), ("/free/redirect-here", 307)):
        before = len(stage.service.received)
        found = await ask(stage, path)
        stage.require(found.get("status") == status, f"expected the redirect itself, got {found}")
        received = len(stage.service.received) - before
        stage.require(received == 1, f"expected one request, got {received}")


ATTACK = Attack(guests={"guest": requester(FREE)}, run=_run)
