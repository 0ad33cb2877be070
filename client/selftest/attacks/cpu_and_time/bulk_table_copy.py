"""A table copied onto itself again and again.

Source: sandboxes preempt between instructions only. Expected: FUEL or DEADLINE, neighbours in time.
"""

from client.selftest.attack import Guest, fails, once
from client.selftest.guests import forever

_WAT = forever("(table.copy (i32.const 0) (i32.const 1) (i32.const 9000))").replace(
    '(memory (export "memory") 2)', '(table 10000 funcref) (memory (export "memory") 2)'
)
ATTACK = once(Guest(wat=_WAT, limits={"wall_ms": 500}), expect=fails("FUEL", "DEADLINE"))
