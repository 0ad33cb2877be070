"""``poll_oneoff`` with two thousand million subscriptions, which do not fit the memory.

Source: CWE-190. Expected: the guest is told that its arguments are invalid, or trapped; never a wait.
"""

from client.selftest.attack import Guest, fails, once
from client.selftest.guests import command

_WAT = command(
    "(if (i32.eqz (call $poll_oneoff (i32.const 0) (i32.const 512) (i32.const 0x7fffffff) (i32.const 768)))"
    " (then (return))) (call $proc_exit (i32.const 5))"
)
ATTACK = once(Guest(wat=_WAT), expect=fails("GUEST_ERROR", "TRAP"))
