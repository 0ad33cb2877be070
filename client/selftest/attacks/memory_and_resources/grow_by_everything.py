"""One growth by four gigabytes.

Source: CWE-789. Expected: refused; the guest goes on with what it had.
"""

from client.selftest.attack import Guest, fails, once
from client.selftest.guests import command

_BODY = (
    "(if (i32.ne (memory.grow (i32.const 65530)) (i32.const -1)) (then (return)))"
    "(if (i32.ne (memory.size) (i32.const 2)) (then (return)))"
    "(call $proc_exit (i32.const 9))"
)
ATTACK = once(Guest(wat=command(_BODY)), expect=fails("GUEST_ERROR", message="got 9"))
