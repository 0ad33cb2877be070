"""A service that sends the injected header back in a compressed body.

Source: CWE-201. Expected: scrubbed after decompression.
"""

from client.selftest.attack import Attack
from client.selftest.requests import BOUND, requester
from client.selftest.secret_echoes import echoed
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    await echoed(stage, "/bound/echo-gzip")
    await echoed(stage, "/bound/echo-deflate")


ATTACK = Attack(guests={"guest": requester(BOUND)}, run=_run)
