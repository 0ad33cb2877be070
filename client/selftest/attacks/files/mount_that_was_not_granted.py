"""Guests without a grant, or with another one, that look for the node's mounts.

Source: CWE-862. Expected: there is no directory, and no operation of the broker either.
"""

from client.selftest.attack import Attack, Guest
from client.selftest.exports import MINE
from client.selftest.file_attempts import prober, refused
from client.selftest.guests import ASK_WHAT_IT_IS_TOLD, told
from client.selftest.stage import Stage

_ATTEMPTS = (
    "os.listdir('/scratch')",
    "open('/scratch/new', 'w')",
    "open('/brief/new', 'w')",
    "open('/theirs/canary').read()",
    "os.listdir('/')",
    "os.open('hello', os.O_RDONLY, dir_fd=9)",
)
_OPERATIONS = ("mounts", "open", "read", "write", "list", "stat", "rename", "resize")


async def _run(stage: Stage) -> None:
    errors = ("ENOENT", "EBADF", "ENOTCAPABLE", "EPERM")
    await refused(stage, errors, _ATTEMPTS, guest="other")
    await refused(stage, errors, [*_ATTEMPTS, "open('/mine/hello').read()", "os.listdir('/mine')"], guest="none")
    for operation in _OPERATIONS:
        seen = await stage.invoke("asker", told(f"files.{operation}", "\0\0"))
        stage.require('"denied"' in (seen.output or ""), f"expected {operation} to be denied, got {seen}")


ATTACK = Attack(
    guests={
        "none": prober(),
        "other": prober(MINE),
        "asker": Guest(wat=ASK_WHAT_IT_IS_TOLD, grants={"files": [dict(MINE)]}),
    },
    run=_run,
)
