"""A guest that fills its scratch: with bytes, with files, and with ever deeper directories.

Source: CWE-400. Expected: the quota of the export, in every measure; what is on the disk stays within it.
"""

from client.selftest.attack import Attack
from client.selftest.exports import SCRATCH, SCRATCH_BYTES_MAX, SCRATCH_DEPTH_MAX, SCRATCH_FILES_MAX
from client.selftest.file_attempts import emptied_scratch, prober, scratch_of, tried
from client.selftest.stage import Stage

_PIECE_BYTES = 4_096
_DEEPER = [f"os.mkdir('/scratch' + '/d' * {depth})" for depth in range(1, SCRATCH_DEPTH_MAX + 2)]
_MORE = [f"Path('/scratch/e{number}').touch()" for number in range(2 * SCRATCH_FILES_MAX)]
_LONGER = [f"open('/scratch/e0', 'ab', 0).write(bytes({_PIECE_BYTES}))"] * (2 * SCRATCH_BYTES_MAX // _PIECE_BYTES)

_QUOTAS = {"EDQUOT", "ENAMETOOLONG", "EIO"}
"""EIO is what a component's libc makes of the quota of bytes."""


async def _run(stage: Stage) -> None:
    await emptied_scratch(stage)
    scratch = await scratch_of(stage)
    for measure in (_DEEPER, _MORE, _LONGER):
        came = await tried(stage, measure)
        stage.require(came[0].startswith("= "), f"expected scratch that can be used, got {came[0]} of {measure[0]}")
        stage.require(came[-1] in _QUOTAS, f"expected a quota, got {came[-1]} of {measure[-1]}")
    found = list(scratch.rglob("*"))
    size = sum(each.stat().st_size for each in found if each.is_file())
    depth = max(len(each.relative_to(scratch).parts) for each in found)
    stage.require(len(found) <= SCRATCH_FILES_MAX, f"expected at most {SCRATCH_FILES_MAX} files, got {len(found)}")
    stage.require(size <= SCRATCH_BYTES_MAX, f"expected at most {SCRATCH_BYTES_MAX} bytes, got {size}")
    stage.require(depth <= SCRATCH_DEPTH_MAX, f"expected at most {SCRATCH_DEPTH_MAX} names, got {depth}")


ATTACK = Attack(guests={"guest": prober(SCRATCH)}, run=_run)
