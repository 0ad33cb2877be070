"""A guest that makes symbolic and hard links in its scratch.

Source: CWE-59. Expected: none is made.
"""

from client.selftest.attack import Attack
from client.selftest.exports import MINE, SCRATCH
from client.selftest.file_attempts import prober, refused, tried
from client.selftest.stage import Stage

_ATTEMPTS = (
    "os.symlink('/etc/passwd', '/scratch/absolute')",
    "os.symlink('../../../canary', '/scratch/relative')",
    "os.symlink('kept', '/scratch/inside')",
    "os.link('/scratch/kept', '/scratch/second')",
    "os.link('/mine/hello', '/scratch/hello')",
    "os.link('/mine/link', '/scratch/link')",
    "os.link('/scratch/kept', '/mine/kept')",
)


async def _run(stage: Stage) -> None:
    await tried(stage, ["Path('/scratch/kept').write_text('x')"])
    await refused(stage, ("EPERM", "EROFS", "EXDEV", "ENOTCAPABLE"), _ATTEMPTS)
    (names,) = await tried(stage, ["os.listdir('/scratch')"])
    stage.require(names == "= ['kept']", f"expected one file in scratch, got {names}")


ATTACK = Attack(guests={"guest": prober(MINE, SCRATCH)}, run=_run)
