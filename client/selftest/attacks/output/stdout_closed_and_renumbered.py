"""Standard streams closed and renumbered onto each other, then written.

Source: CWE-910. Expected: an errno or a trap; no descriptor of the host is meant.
"""

from client.selftest.attack import Guest, fails, once
from client.selftest.guests import command, write

_WAT = command(
    "(drop (call $fd_close (i32.const 1))) (drop (call $fd_renumber (i32.const 2) (i32.const 1)))"
    "(drop (call $fd_renumber (i32.const 0) (i32.const 5)))"
    + write(5, "(i32.const 0)", "(i32.const 16)")
    + write(3, "(i32.const 0)", "(i32.const 16)")
    + "(call $proc_exit (i32.const 9))"
)
ATTACK = once(Guest(wat=_WAT), expect=fails("GUEST_ERROR", "TRAP"))
