"""More randomness in one call than fits a slice.

Source: CWE-400. Expected: the call is refused, the guest is told.
"""

from client.selftest.attack import Guest, fails, once
from client.selftest.guests import command

_BODY = (
    "(if (i32.eqz (call $random_get (i32.const 0) (i32.const 131072))) (then (return))) (call $proc_exit (i32.const 9))"
)
ATTACK = once(Guest(wat=command(_BODY)), expect=fails("GUEST_ERROR", message="got 9"))
