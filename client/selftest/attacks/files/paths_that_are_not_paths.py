"""Paths with NUL, with bytes that are no text, of names and lengths beyond what a file system has, and empty ones.

Source: CWE-158, CWE-1284. Expected: a typed error each time.
"""

from client.selftest.attack import Attack
from client.selftest.exports import MINE, SCRATCH
from client.selftest.file_attempts import prober, refused
from client.selftest.stage import Stage

_PATHS = (
    "'/mine/hello\\0'",
    "'/scratch/a\\0b'",
    "b'/scratch/\\xff\\xfe'",
    "'/scratch/' + 'x' * 256",
    "'/scratch/' + 'x' * 5_000",
    "'/scratch/' + 'x/' * 10_000",
    "'/scratch/' + '../' * 10_000",
    "'/scratch/' + chr(0x1F4A9) * 100",
    "''",
)
_ERRORS = ("ValueError", "EILSEQ", "ENAMETOOLONG", "EINVAL", "ENOENT", "EPERM")


async def _run(stage: Stage) -> None:
    await refused(stage, _ERRORS, [f"open({path}, 'w')" for path in _PATHS])
    await refused(stage, _ERRORS, [f"os.mkdir({path})" for path in _PATHS])
    await refused(stage, _ERRORS, [f"os.stat({path})" for path in _PATHS])


ATTACK = Attack(guests={"guest": prober(MINE, SCRATCH)}, run=_run)
