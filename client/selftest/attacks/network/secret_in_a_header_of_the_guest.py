"""A guest that sets the injected header itself, in every case, to see which one wins.

Source: CWE-113. Expected: denied or invalid; nothing is sent.
"""

from client.selftest.attack import Attack
from client.selftest.requests import BOUND, requester, require_refused
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    for name in ("Authorization", "authorization", "AUTHORIZATION"):
        await require_refused(stage, "/bound/echo", ["denied", "invalid"], headers={name: "mine"})


ATTACK = Attack(guests={"guest": requester(BOUND)}, run=_run)
