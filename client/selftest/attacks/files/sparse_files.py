"""Files with a length of terabytes and nothing in them.

Source: CWE-770. Expected: holes count: the quota refuses them, and what was written before is there.
"""

from client.selftest.attack import Attack
from client.selftest.exports import SCRATCH
from client.selftest.file_attempts import prober, refused, tried
from client.selftest.stage import Stage

_ATTEMPTS = (
    "os.truncate('/scratch/sparse', 1 << 40)",
    "os.truncate('/scratch/sparse', (1 << 63) - 1)",
    "os.truncate('/scratch/sparse', 65_537)",
    "os.pwrite(os.open('/scratch/sparse', os.O_WRONLY), b'x', 1 << 40)",
    "os.pwrite(os.open('/scratch/sparse', os.O_WRONLY), b'x', (1 << 63) - 2)",
)


async def _run(stage: Stage) -> None:
    await tried(stage, ["Path('/scratch/sparse').write_text('kept')"])
    await refused(stage, ("EDQUOT", "EFBIG", "EIO", "EINVAL", "ENOSPC", "ENOTSUP"), _ATTEMPTS)
    (kept,) = await tried(stage, ["open('/scratch/sparse').read()"])
    stage.require(kept == "= 'kept'", f"expected the file as it was, got {kept}")


ATTACK = Attack(guests={"guest": prober(SCRATCH)}, run=_run)
