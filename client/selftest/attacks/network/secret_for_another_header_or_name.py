"""Templates that have the secret put into another header, or name a secret that the charter does not bind.

Source: CWE-863. Expected: denied, though reviewers approved the template; nothing is sent.
"""

from client.selftest.attack import Attack
from client.selftest.hostile_service import HEADER, SECRET
from client.selftest.requests import FREE, requester, require_refused
from client.selftest.stage import Stage

_GUESTS = {
    "header": requester({**FREE, "inject": {"header": "X-Other", "secret": SECRET}}),
    "name": requester({**FREE, "inject": {"header": HEADER, "secret": "another-secret"}}),
}


async def _run(stage: Stage) -> None:
    for guest in _GUESTS:
        await require_refused(stage, "/bound/echo", ["denied"], guest=guest)


ATTACK = Attack(guests=_GUESTS, run=_run)
