"""A guest that asks WASI for rights which its grant has not, and uses a descriptor for more than it was opened for.

Source: WASI preview 1, ``path_open`` and ``fd_fdstat_set_rights``. Expected: no call succeeds but the one that reads.
"""

from client.selftest.attack import Attack, Guest
from client.selftest.exports import HELLO, MINE, SCRATCH
from client.selftest.file_attempts import calls, open_path, opened, transfer
from client.selftest.stage import Stage

_READ, _WRITE, _ALL = 2, 64, (1 << 29) - 1
_CREATE, _TRUNCATE = 1, 8
_NAME = HELLO.strip().encode()
_LENGTH = len(_NAME)
_PLACE = f"(i32.const 256) (i32.const {_LENGTH})"
_ATTEMPTS = (
    open_path(3, length=_LENGTH, rights=_WRITE, into=1),
    open_path(3, length=_LENGTH, rights=_READ, flags=_TRUNCATE, into=1),
    open_path(3, length=_LENGTH - 1, rights=_READ | _WRITE, flags=_CREATE, into=1),
    open_path(3, length=_LENGTH, rights=_READ),
    transfer("fd_write", opened(0)),
    f"(call $fd_filestat_set_size {opened(0)} (i64.const 0))",
    f"(call $fd_allocate {opened(0)} (i64.const 0) (i64.const 100))",
    f"(call $fd_fdstat_set_rights {opened(0)} (i64.const {_ALL}) (i64.const {_ALL}))",
    f"(call $path_unlink_file (i32.const 3) {_PLACE})",
    f"(call $path_filestat_set_times (i32.const 3) (i32.const 0) {_PLACE} (i64.const 1) (i64.const 1) (i32.const 5))",
    f"(call $path_rename (i32.const 3) {_PLACE} (i32.const 4) {_PLACE})",
    f"(call $path_rename (i32.const 4) {_PLACE} (i32.const 3) {_PLACE})",
    f"(call $path_link (i32.const 3) (i32.const 0) {_PLACE} (i32.const 4) {_PLACE})",
    f"(call $path_symlink {_PLACE} (i32.const 4) {_PLACE})",
)
_OPENED_TO_READ = 3


def _guest() -> Guest:
    return calls(*_ATTEMPTS, name=_NAME, grants=[MINE, SCRATCH])


async def _run(stage: Stage) -> None:
    seen = await stage.invoke()
    numbers = (seen.output or "").split()
    stage.require(len(numbers) == len(_ATTEMPTS), f"expected {len(_ATTEMPTS)} numbers, got {seen}")
    succeeded = [index for index, number in enumerate(numbers) if number == "00"]
    stage.require(succeeded == [_OPENED_TO_READ], f"expected only reading to succeed, got {numbers}")
    stage.require(not stage.exports.differences(), f"expected exports as they were, got {stage.exports.differences()}")


ATTACK = Attack(guests={"guest": _guest()}, run=_run)
