"""A guest that fills its memory with a pattern, and one after it that looks for any byte it did not write.

Source: CWE-226. Expected: memory is zero, every time.
"""

from client.selftest.attack import Attack, Guest, fails
from client.selftest.guests import command
from client.selftest.stage import Stage

_GROW = "(drop (memory.grow (i32.const 126)))"
_WRITER = command(f"{_GROW} (memory.fill (i32.const 0) (i32.const 170) (i32.const 8388608)) unreachable")
_READER = command(
    f"(local $at i32) {_GROW} (loop $more (if (i64.ne (i64.load (local.get $at)) (i64.const 0))"
    " (then (call $proc_exit (i32.const 66)))) (local.set $at (i32.add (local.get $at) (i32.const 8)))"
    "(br_if $more (i32.lt_u (local.get $at) (i32.const 8388608)))) (call $proc_exit (i32.const 9))"
)


async def _run(stage: Stage) -> None:
    for _ in range(4):
        await stage.expect(fails("TRAP"), "writer")
        await stage.expect(fails("GUEST_ERROR", message="got 9"), "reader")


ATTACK = Attack(guests={"writer": Guest(wat=_WRITER), "reader": Guest(wat=_READER)}, run=_run)
