"""A guest that changes its globals and tables, and the same guest again, which tells what it finds.

Source: CWE-226. Expected: the initial values, every time.
"""

from client.selftest.attack import Answers, Attack, Guest
from client.selftest.guests import command, write
from client.selftest.stage import Stage

_WAT = command(
    "(i32.store8 (i32.const 64) (i32.add (global.get $g) (i32.const 48))) (global.set $g (i32.const 7))"
    "(i32.store8 (i32.const 65) (i32.add (ref.is_null (table.get 0 (i32.const 0))) (i32.const 48)))"
    "(table.set 0 (i32.const 0) (ref.func $f))" + write(1, "(i32.const 64)", "(i32.const 2)"),
    rest="(global $g (mut i32) (i32.const 1)) (table 2 funcref) (elem declare func $f) (func $f)",
)


async def _run(stage: Stage) -> None:
    for _ in range(3):
        await stage.expect(Answers("11"))


ATTACK = Attack(guests={"guest": Guest(wat=_WAT)}, run=_run)
