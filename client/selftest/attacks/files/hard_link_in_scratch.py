"""A file of the host that has a second name in a guest's scratch.

Source: CWE-62. Expected: it is not written to, truncated or touched.
"""

import os

from client.selftest.attack import Attack
from client.selftest.exports import SCRATCH
from client.selftest.file_attempts import prober, refused, scratch_of
from client.selftest.stage import Stage

_ATTEMPTS = (
    "open('/scratch/hard', 'w')",
    "open('/scratch/hard', 'a')",
    "open('/scratch/hard', 'r+')",
    "os.open('/scratch/hard', os.O_WRONLY)",
    "os.open('/scratch/hard', os.O_RDWR | os.O_TRUNC)",
    "os.truncate('/scratch/hard', 0)",
)


async def _run(stage: Stage) -> None:
    scratch = await scratch_of(stage)
    hard = scratch / "hard"
    os.link(stage.exports.directory / "outside" / "canary", hard)
    try:
        await refused(stage, ("EPERM",), _ATTEMPTS)
    finally:
        hard.unlink()


ATTACK = Attack(guests={"guest": prober(SCRATCH)}, run=_run)
