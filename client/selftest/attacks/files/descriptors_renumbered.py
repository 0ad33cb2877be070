"""A guest that puts a file it may read in the place of one that it may write to, and mounts in each other's place.

Source: WASI preview 1, ``fd_renumber``. Expected: rights go with the file, not with the number.
"""

from client.selftest.attack import Attack, Guest
from client.selftest.exports import HELLO, MINE, SCRATCH
from client.selftest.file_attempts import calls, open_path, opened, transfer
from client.selftest.stage import Stage

_READ, _BOTH = 2, 2 | 64
_CREATE = 1
_NAME = HELLO.strip().encode()
_LENGTH = len(_NAME)


def _renumber(source: str, target: str) -> str:
    return f"(call $fd_renumber {source} {target})"


_ATTEMPTS = {
    open_path(3, length=_LENGTH, rights=_READ): True,
    open_path(4, length=_LENGTH, rights=_BOTH, flags=_CREATE, into=1): True,
    transfer("fd_write", opened(1)): True,
    _renumber(opened(0), opened(1)): True,
    transfer("fd_read", opened(0)): False,
    "(call $fd_filestat_set_size " + opened(1) + " (i64.const 0))": False,
    "(call $fd_allocate " + opened(1) + " (i64.const 0) (i64.const 100))": False,
    _renumber(opened(1), "(i32.const 1)"): False,
    _renumber(opened(1), "(i32.const 99)"): False,
    _renumber("(i32.const 99)", opened(1)): False,
    open_path("(i32.const 99)", length=_LENGTH, rights=_READ, into=2): False,
    open_path(opened(1), length=_LENGTH, rights=_READ, into=2): False,
}
"""Calls in their order, with whether each must succeed."""


def _guest() -> Guest:
    return calls(*_ATTEMPTS, name=_NAME, grants=[MINE, SCRATCH])


async def _run(stage: Stage) -> None:
    seen = await stage.invoke()
    succeeded = [number == "00" for number in (seen.output or "").split()]
    stage.require(succeeded == list(_ATTEMPTS.values()), f"expected {list(_ATTEMPTS.values())}, got {seen}")
    stage.require(not stage.exports.differences(), f"expected exports as they were, got {stage.exports.differences()}")


ATTACK = Attack(guests={"guest": _guest()}, run=_run)
