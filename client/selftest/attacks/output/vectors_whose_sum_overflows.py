"""Two vectors of three gigabytes each, whose lengths do not fit 32 bits together.

Source: CWE-190. Expected: OUTPUT or a trap; nothing is read beyond the memory.
"""

from client.selftest.attack import Guest, fails, once
from client.selftest.guests import command

_WAT = command(
    "(i32.store (i32.const 0) (i32.const 0)) (i32.store (i32.const 4) (i32.const 0xc0000000))"
    "(i32.store (i32.const 8) (i32.const 0)) (i32.store (i32.const 12) (i32.const 0xc0000000))"
    "(drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 2) (i32.const 32))) (call $proc_exit (i32.const 6))"
)
ATTACK = once(Guest(wat=_WAT), expect=fails("OUTPUT", "TRAP", "GUEST_ERROR"))
