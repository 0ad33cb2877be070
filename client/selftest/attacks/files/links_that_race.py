"""Somebody on the host who swaps a directory of a guest's scratch for a link, as fast as it can be done.

Source: CWE-367 (time of check, time of use). Expected: what is read is the directory's or an error, and nothing is made
behind the link.
"""

import ast
import asyncio
import threading
from pathlib import Path
from typing import Final

from client.selftest.attack import Attack
from client.selftest.exports import SCRATCH
from client.selftest.file_attempts import prober, scratch_of, tried
from client.selftest.stage import Stage

_ROUNDS: Final = 4
_READ: Final = "sorted({attempt(\"open('/scratch/race/canary').read()\") for _ in range(150)})"
_MADE: Final = "sorted({attempt(\"open('/scratch/race/made', 'w').close()\") for _ in range(50)})"
_INSIDE: Final = "= 'inside'"
_HARMLESS: Final = {_INSIDE, "= None", "ELOOP", "ENOENT", "ENOTDIR", "EPERM"}


def _swap(place: Path, outside: Path, stopped: threading.Event, swaps: list[int]) -> None:
    """Put the directory, then a link to ``outside``, at one path; leave the directory there."""
    race, aside, link = place / "race", place / "aside", place / "link"
    link.symlink_to(outside)
    while not stopped.is_set():
        race.rename(aside)
        link.rename(race)
        race.rename(link)
        aside.rename(race)
        swaps[0] += 1
    link.unlink()


async def _run(stage: Stage) -> None:
    scratch = await scratch_of(stage)
    race, outside = scratch / "race", stage.exports.directory / "outside"
    race.mkdir()
    race.joinpath("canary").write_text("inside", encoding="ascii")
    stopped, swaps = threading.Event(), [0]
    swapping = asyncio.ensure_future(asyncio.to_thread(_swap, scratch, outside, stopped, swaps))
    try:
        found: set[str] = set()
        for _ in range(_ROUNDS):
            for came in await tried(stage, [_READ, _MADE]):
                stage.require(came.startswith("= ["), f"expected what came of each attempt, got {came[:200]}")
                found |= _known(came)
    finally:
        stopped.set()
        await swapping
        for name in ("canary", "made"):
            race.joinpath(name).unlink(missing_ok=True)
        race.rmdir()
    stage.require(swaps[0] > 0, "expected the directory to be swapped while the guest ran")
    stage.require(_INSIDE in found, f"expected the race to be won sometimes, got {sorted(found)}")
    stage.require(found <= _HARMLESS, f"expected the directory's own file or an error, got {sorted(found - _HARMLESS)}")
    stage.require(not stage.exports.differences(), f"expected exports as they were, got {stage.exports.differences()}")


def _known(came: str) -> set[str]:
    """Take the list that the guest printed apart."""
    return set(ast.literal_eval(came.removeprefix("= ")))


ATTACK = Attack(guests={"guest": prober(SCRATCH, fuel=5_000_000_000, host_calls=10_000)}, run=_run)
