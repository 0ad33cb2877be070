"""A megabyte of log per turn, a hundred turns.

Source: CWE-779. Expected: the log is cut at its limit; the invocation goes on or ends, nothing else is delayed.
"""

from client.selftest.attack import Attack, Guest
from client.selftest.guests import command, write
from client.selftest.stage import Stage

_WAT = command(
    "(local $n i32) (loop $more "
    + write(2, "(i32.const 0)", "(i32.const 65536)")
    + "(local.set $n (i32.add (local.get $n) (i32.const 1))) (br_if $more (i32.lt_u (local.get $n) (i32.const 100))))"
)


async def _run(stage: Stage) -> None:
    await stage.invoke()
    lines = await stage.log_lines()
    kept = sum(len(line) for line in lines)
    stage.require(kept <= 6 * 4_096, f"expected a log that is cut at 4096 bytes (escaped: six times that), got {kept}")


ATTACK = Attack(guests={"guest": Guest(wat=_WAT)}, run=_run)
