"""Paths that lie below the prefix for one reader and not for another: dots, encodings, backslashes, full width.

Source: CWE-22, CWE-180. Expected: denied or invalid; nothing is sent.
"""

from client.selftest.attack import Attack
from client.selftest.requests import FREE, requester, require_refused
from client.selftest.stage import Stage

_PATHS = (
    "/free/../secret", "/free/%2e%2e/secret", "/free/%252e%252e/secret", "/free/..;/secret", "/free/..%2fsecret",
    "/free\\..\\secret", "//other.example/free", "/freedom", "free/x", "http://other.example/free", "/free/\r\nX: y",
    "/free/\uff0e\uff0e/secret", "/free/x#fragment", "/free/x?y=z", "/FREE/x", "/free/%zz", "/free/\0",
    "@other.example/free", "/free/%00",
)  # fmt: skip


async def _run(stage: Stage) -> None:
    for path in _PATHS:
        await require_refused(stage, path, ["denied", "invalid"])


ATTACK = Attack(guests={"guest": requester(FREE)}, run=_run)
