"""A template, approved by its reviewers, that has the secret of one origin sent to another one.

Source: CWE-863. Expected: denied before anything is resolved; the charter binds the secret to its own origin.
"""

from client.selftest.attack import Attack
from client.selftest.hostile_service import PLACEHOLDER
from client.selftest.requests import BOUND, requester, require_refused
from client.selftest.stage import Stage

_GUESTS = {
    "other": requester({**BOUND, "origin": "https://collector.example"}),
    "below": requester({**BOUND, "origin": PLACEHOLDER.replace("http://", "https://sub.")}),
}


async def _run(stage: Stage) -> None:
    for guest in _GUESTS:
        await require_refused(stage, "/bound/echo", ["denied"], guest=guest)


ATTACK = Attack(guests=_GUESTS, run=_run)
