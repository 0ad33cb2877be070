"""Half of the memory copied onto the other half again and again.

Source: sandboxes preempt between instructions only. Expected: FUEL or DEADLINE, neighbours in time.
"""

from client.selftest.attack import Guest, fails, once
from client.selftest.guests import command

_BODY = (
    "(drop (memory.grow (i32.const 62)))"
    "(loop $again (memory.copy (i32.const 0) (i32.const 2097152) (i32.const 2097152)) (br $again))"
)
ATTACK = once(Guest(wat=command(_BODY), limits={"wall_ms": 500}), expect=fails("FUEL", "DEADLINE"))
