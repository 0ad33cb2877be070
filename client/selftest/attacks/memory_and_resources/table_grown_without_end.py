"""A table that grows until it is refused, and beyond.

Source: CWE-770. Expected: growth is refused at the limit of elements: the guest sees it and gives up.
"""

from client.selftest.attack import Guest, fails, once
from client.selftest.guests import command

_BODY = (
    "(loop $more (br_if $more (i32.ne (table.grow 0 (ref.null func) (i32.const 1000)) (i32.const -1))))"
    "(if (i32.gt_u (table.size 0) (i32.const 20000)) (then (return))) (call $proc_exit (i32.const 9))"
)
_WAT = command(_BODY).replace('(memory (export "memory") 2)', '(table 1 funcref) (memory (export "memory") 2)')
ATTACK = once(Guest(wat=_WAT), expect=fails("GUEST_ERROR", message="got 9"))
