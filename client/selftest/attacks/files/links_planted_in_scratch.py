"""Symbolic links that somebody on the host planted in a guest's scratch: to a file, to nothing, and to a directory.

Source: CWE-59. Expected: nothing is read, written, made, renamed or removed through them.
"""

from client.selftest.attack import Attack
from client.selftest.exports import SCRATCH
from client.selftest.file_attempts import prober, refused, scratch_of
from client.selftest.stage import Stage

_LINKS = {"planted": "canary", "dangling": "new", "folder": ""}
_ATTEMPTS = (
    "open('/scratch/planted').read()",
    "open('/scratch/planted', 'w')",
    "open('/scratch/planted', 'a')",
    "os.truncate('/scratch/planted', 0)",
    "os.utime('/scratch/planted', (1, 1))",
    "open('/scratch/dangling', 'w')",
    "open('/scratch/dangling', 'x')",
    "os.mkdir('/scratch/folder/made')",
    "open('/scratch/folder/made', 'w')",
    "os.listdir('/scratch/folder/')",
    "os.unlink('/scratch/folder/canary')",
    "os.rename('/scratch/folder/canary', '/scratch/mine')",
    "os.rename('/scratch/planted/', '/scratch/mine')",
    "os.rmdir('/scratch/folder/')",
)


async def _run(stage: Stage) -> None:
    scratch = await scratch_of(stage)
    try:
        for name, target in _LINKS.items():
            (scratch / name).symlink_to(stage.exports.directory / "outside" / target)
        await refused(stage, ("ELOOP", "ENOTDIR", "EEXIST", "ENOENT", "EPERM"), _ATTEMPTS)
    finally:
        for name in _LINKS:
            (scratch / name).unlink(missing_ok=True)


ATTACK = Attack(guests={"guest": prober(SCRATCH)}, run=_run)
