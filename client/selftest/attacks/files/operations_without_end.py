"""A guest that hammers the operations of files, and one that opens files without closing them.

Source: CWE-770, CWE-774. Expected: bounded by calls or by the deadline, and no neighbour waits.
"""

from client.selftest.attack import Attack, BreachError, Guest
from client.selftest.exports import MINE
from client.selftest.guests import command, data
from client.selftest.stage import Stage

_OPEN = (
    "(loop $again (drop (call $path_open (i32.const 3) (i32.const 0) (i32.const 256) (i32.const 5) (i32.const 0)"
    " (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 64))) {} (br $again))"
)
_REASONS = {"HOST_CALLS", "DEADLINE", "FUEL"}


def _guest(then: str) -> Guest:
    begin = "(drop (call $fd_prestat_get (i32.const 3) (i32.const 64)))"
    wat = command(begin + _OPEN.format(then), rest=data(256, b"hello"))
    return Guest(wat=wat, grants={"files": [dict(MINE)]}, limits={"wall_ms": 2_000})


async def _run(stage: Stage) -> None:
    for guest in ("hammer", "hoarder"):
        seen = await stage.invoke(guest)
        if seen.reason not in _REASONS:
            raise BreachError(f"expected one of {sorted(_REASONS)} of the {guest}, got {seen}")


_CLOSE = "(drop (call $fd_close (i32.load (i32.const 64))))"
ATTACK = Attack(guests={"hammer": _guest(_CLOSE), "hoarder": _guest("")}, run=_run)
