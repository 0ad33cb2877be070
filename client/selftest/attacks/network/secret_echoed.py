"""A service that sends the injected header back, as it came.

Source: CWE-201. Expected: it is scrubbed from the answer: no byte of the secret reaches the guest.
"""

from client.selftest.attack import Attack
from client.selftest.requests import BOUND, requester
from client.selftest.secret_echoes import echoed
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    await echoed(stage, "/bound/echo")


ATTACK = Attack(guests={"guest": requester(BOUND)}, run=_run)
