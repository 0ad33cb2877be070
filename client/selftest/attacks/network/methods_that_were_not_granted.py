"""Methods beyond the grant, and methods with a second request inside.

Source: CWE-444. Expected: denied or invalid; nothing is sent.
"""

from client.selftest.attack import Attack
from client.selftest.requests import FREE, requester, require_refused
from client.selftest.stage import Stage

_METHODS = ("DELETE", "TRACE", "CONNECT", "OPTIONS", "get", "GET /bound HTTP/1.1\r\nX: ", "", "GET\0", "\u0047\u0415T")


async def _run(stage: Stage) -> None:
    for method in _METHODS:
        await require_refused(stage, "/free/plain", ["denied", "invalid"], method=method)


ATTACK = Attack(guests={"guest": requester(FREE)}, run=_run)
