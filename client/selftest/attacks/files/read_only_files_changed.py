"""A guest that writes, truncates, touches, moves and removes what it may only read; its grant says "rw".

Source: CWE-732. Expected: every attempt is refused, and the files are as they were.
"""

from client.selftest.attack import Attack
from client.selftest.exports import MINE, SCRATCH
from client.selftest.file_attempts import prober, refused, tried
from client.selftest.stage import Stage

_ATTEMPTS = (
    "open('/mine/hello', 'w')",
    "open('/mine/hello', 'a')",
    "open('/mine/hello', 'r+')",
    "os.open('/mine/hello', os.O_RDONLY | os.O_TRUNC)",
    "os.truncate('/mine/hello', 0)",
    "os.ftruncate(os.open('/mine/hello', os.O_RDONLY), 0)",
    "os.write(os.open('/mine/hello', os.O_RDONLY), b'x')",
    "os.utime('/mine/hello', (1, 1))",
    "os.unlink('/mine/hello')",
    "os.unlink('/mine/link')",
    "os.rmdir('/mine/sub')",
    "os.mkdir('/mine/made')",
    "open('/mine/made', 'x')",
    "os.rename('/mine/hello', '/mine/moved')",
    "os.rename('/mine/hello', '/scratch/moved')",
    "os.rename('/scratch/kept', '/mine/hello')",
    "os.replace('/scratch/kept', '/mine/made')",
)


async def _run(stage: Stage) -> None:
    await tried(stage, ["Path('/scratch/kept').write_text('x')"])
    await refused(stage, ("EROFS", "EXDEV", "EBADF", "EPERM", "ENOTCAPABLE", "EINVAL"), _ATTEMPTS)
    (kept,) = await tried(stage, ["open('/mine/hello').read() + open('/scratch/kept').read()"])
    stage.require(kept == r"= 'hello\nx'", f"expected both files as they were, got {kept}")


ATTACK = Attack(guests={"guest": prober({**MINE, "mode": "rw"}, SCRATCH)}, run=_run)
