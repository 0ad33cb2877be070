"""Paths that climb out of a mount by dots, begin at the root, or go through a directory's descriptor.

Source: CWE-22, CWE-36. Expected: every one is refused, and nothing is read.
"""

from client.selftest.attack import Attack
from client.selftest.exports import MINE, SCRATCH
from client.selftest.file_attempts import prober, refused
from client.selftest.stage import Stage

_PATHS = (
    "/mine/..",
    "/mine/../outside/canary",
    "/mine/./.././outside/canary",
    "/mine/sub/../../outside/canary",
    "/mine/sub/sub/../../../outside/canary",
    "/mine//..//outside//canary",
    "/mine/" + "../" * 40 + "etc/passwd",
    "/scratch/../mine/hello",
    "/etc/passwd",
    "//etc/passwd",
    "/proc/self/environ",
    "../../../etc/passwd",
    "etc/passwd",
)
_THROUGH_A_DESCRIPTOR = (
    "os.open('../../outside/canary', os.O_RDONLY, dir_fd=os.open('/mine/sub', os.O_RDONLY))",
    "os.stat('..', dir_fd=os.open('/mine', os.O_RDONLY))",
    "os.open('/etc/passwd', os.O_RDONLY, dir_fd=os.open('/mine', os.O_RDONLY))",
)


async def _run(stage: Stage) -> None:
    attempts = [f"{call}({path!r})" for path in _PATHS for call in ("open", "os.listdir", "os.stat")]
    await refused(stage, ("EPERM", "ENOENT", "ENOTCAPABLE"), [*attempts, *_THROUGH_A_DESCRIPTOR])


ATTACK = Attack(guests={"guest": prober(MINE, SCRATCH)}, run=_run)
