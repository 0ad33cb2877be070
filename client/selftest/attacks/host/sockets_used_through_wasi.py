"""The socket functions of WASI on every descriptor from 0 to 63.

Source: CWE-918. Expected: an errno each time: there is no socket.
"""

from client.selftest.attack import Guest, fails, once
from client.selftest.guests import command

_CALLS = (
    "(call $sock_send (local.get $fd) (i32.const 64) (i32.const 1) (i32.const 0) (i32.const 128))",
    "(call $sock_recv (local.get $fd) (i32.const 64) (i32.const 1) (i32.const 0) (i32.const 128) (i32.const 132))",
    "(call $sock_accept (local.get $fd) (i32.const 0) (i32.const 128))",
)
_WAT = command(
    "(local $fd i32) (loop $next "
    + "".join(f"(if (i32.eqz {call}) (then (return)))" for call in _CALLS)
    + "(local.set $fd (i32.add (local.get $fd) (i32.const 1))) (br_if $next (i32.lt_u (local.get $fd) (i32.const 64))))"
    "(call $proc_exit (i32.const 9))"
)
ATTACK = once(Guest(wat=_WAT), expect=fails("GUEST_ERROR", message="got 9"))
