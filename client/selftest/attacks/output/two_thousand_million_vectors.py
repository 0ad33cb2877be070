"""A write of as many vectors as the number can say.

Source: CWE-606. Expected: an errno (5: the guest's own exit code) or a trap, at once.
"""

from client.selftest.attack import Guest, fails, once
from client.selftest.guests import command

_WAT = command(
    "(if (i32.eqz (call $fd_write (i32.const 1) (i32.const 0) (i32.const 0x7fffffff) (i32.const 12)))"
    " (then (return))) (call $proc_exit (i32.const 5))"
)
ATTACK = once(Guest(wat=_WAT), expect=fails("GUEST_ERROR", "TRAP"))
