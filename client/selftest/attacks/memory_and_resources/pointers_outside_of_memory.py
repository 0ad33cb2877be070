"""Imports called with pointers and lengths beyond the guest's memory.

Source: CWE-787, CVE-2021-32629. Expected: a trap or an errno; the host reads and writes nothing there.
"""

from client.selftest.attack import Attack, Guest, fails
from client.selftest.guests import command
from client.selftest.stage import Stage

_GUESTS = {
    "read": "(drop (call $random_get (i32.const 0xfffffff0) (i32.const 64)))",
    "clock": "(drop (call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 0xfffffffc)))",
    "vectors": "(drop (call $fd_write (i32.const 1) (i32.const 0xfffffff8) (i32.const 4) (i32.const 0)))",
    "environ": "(drop (call $environ_get (i32.const 0x7ffffff0) (i32.const 0xfffffff0)))",
}


async def _run(stage: Stage) -> None:
    for name in _GUESTS:
        seen = await stage.invoke(name)
        if seen.output != "never":
            fails("TRAP", "GUEST_ERROR").check(seen)


ATTACK = Attack(
    guests={name: Guest(wat=command(f"{body} (call $proc_exit (i32.const 9))")) for name, body in _GUESTS.items()},
    run=_run,
)
