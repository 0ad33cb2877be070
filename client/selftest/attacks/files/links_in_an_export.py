"""Symbolic links in an export that lead out of it, with and without a trailing slash, and to themselves.

Source: CWE-61. Expected: none is followed.
"""

from client.selftest.attack import Attack
from client.selftest.exports import MINE
from client.selftest.file_attempts import prober, refused
from client.selftest.stage import Stage

_PATHS = (
    "link",
    "link/",
    "link/.",
    "up/canary",
    "up/",
    "up/.",
    "sub/up/canary",
    "inside",
    "self/etc/passwd",
    "loop",
    "loop/loop",
)


async def _run(stage: Stage) -> None:
    attempts = [f"open('/mine/{path}').read()" for path in _PATHS] + [f"os.listdir('/mine/{path}')" for path in _PATHS]
    await refused(stage, ("ELOOP", "ENOTDIR"), attempts)
    await refused(stage, ("ENOENT", "ELOOP", "ENOTDIR"), [f"os.stat('/mine/{path}')" for path in _PATHS])


ATTACK = Attack(guests={"guest": prober(MINE)}, run=_run)
