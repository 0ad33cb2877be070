"""A guest that fills its scratch: with bytes, with files, with names, and with ever deeper directories.

Source: CWE-400. Expected: the quota of the export, in every measure; what is on the disk stays within it.
"""

from client.selftest.attack import Attack, Guest
from client.selftest.exports import SCRATCH, SCRATCH_BYTES_MAX, SCRATCH_FILES_MAX
from client.selftest.file_attempts import said, scratch_of
from client.selftest.stage import Stage

_SOURCE = """
import os
from pathlib import Path

def until_refused(make):
    for count in range(100_000):
        try:
            make(count)
        except OSError as error:
            return count
    return "never"

def process(text):
    here = text.startswith("[")
    if here:
        import json
        return [str(eval(each)) and "= 0" for each in json.loads(text)]
    deep = lambda count: os.mkdir("/scratch" + "/d" * (count + 1))
    empty = lambda count: Path(f"/scratch/e{count}").touch()
    def big(count):
        with open("/scratch/e0", "ab", buffering=0) as file:
            if file.write(bytes(1_000)) != 1_000:
                raise OSError("short")
    return [str(until_refused(make)) for make in (deep, empty, big)]
"""


async def _run(stage: Stage) -> None:
    scratch = await scratch_of(stage)
    seen = await stage.invoke()
    deep, files, thousands = said(seen.output, f"{seen.reason}: {seen.message}")
    found = list(scratch.rglob("*"))
    size = sum(each.stat().st_size for each in found if each.is_file())
    stage.require("never" not in {deep, files, thousands}, f"expected quotas, got {deep}, {files}, {thousands}")
    stage.require(len(found) <= SCRATCH_FILES_MAX, f"expected at most {SCRATCH_FILES_MAX} files, got {len(found)}")
    stage.require(size <= SCRATCH_BYTES_MAX, f"expected at most {SCRATCH_BYTES_MAX} bytes, got {size}")
    stage.require(int(thousands) >= 1 and int(files) >= 1, "expected scratch that can be used at all")


_GUEST = Guest(python=_SOURCE, grants={"files": [dict(SCRATCH)]}, limits={"wall_ms": 10_000})
ATTACK = Attack(guests={"guest": _GUEST}, run=_run)
