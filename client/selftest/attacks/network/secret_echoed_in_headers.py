"""A service that sends the injected header back in headers of its answer.

Source: CWE-201. Expected: scrubbed from headers too.
"""

from client.selftest.attack import Attack
from client.selftest.requests import BOUND, requester
from client.selftest.secret_echoes import echoed
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    await echoed(stage, "/bound/echo-headers")


ATTACK = Attack(guests={"guest": requester(BOUND)}, run=_run)
