"""Memory grown to the limit, every byte touched.

Source: CWE-770. Expected: MEMORY: growth is refused at the limit.
"""

from client.selftest.attack import Guest, fails, once
from client.selftest.guests import command

_BODY = (
    "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))"
    "(memory.fill (i32.const 0) (i32.const 1) (i32.mul (memory.size) (i32.const 65536)))"
    "(call $proc_exit (i32.const 1))"
)
ATTACK = once(Guest(wat=command(_BODY)), expect=fails("MEMORY"))
