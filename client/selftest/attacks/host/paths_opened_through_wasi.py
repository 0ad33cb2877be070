"""``path_open`` on every descriptor from 0 to 63, with absolute and relative paths.

Source: CVE-2023-51661 and other escapes through preopens. Expected: an errno each time: there is no directory.
"""

from client.selftest.attack import Guest, fails, once
from client.selftest.guests import command, data

_OPEN = (
    "(call $path_open (local.get $fd) (i32.const 1) (i32.const 256) (i32.const 11) (i32.const 0)"
    " (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 64))"
)
_WAT = command(
    f"(local $fd i32) (loop $next (if (i32.eqz {_OPEN}) (then (return)))"
    " (if (i32.eqz (call $fd_prestat_get (local.get $fd) (i32.const 64))) (then (return)))"
    "(local.set $fd (i32.add (local.get $fd) (i32.const 1))) (br_if $next (i32.lt_u (local.get $fd) (i32.const 64))))"
    "(call $proc_exit (i32.const 9))",
    rest=data(256, b"/etc/passwd"),
)
ATTACK = once(Guest(wat=_WAT), expect=fails("GUEST_ERROR", message="got 9"))
