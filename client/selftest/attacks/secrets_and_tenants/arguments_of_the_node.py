"""Everything that the guest's arguments hold, written out.

Source: CWE-214. Expected: the fixed name of the program, nothing of the host's command line.
"""

from client.selftest.attack import Answers, Guest, once
from client.selftest.guests import command, write

_BODY = (
    "(local i32) (drop (call $args_sizes_get (i32.const 40) (i32.const 44)))"
    "(drop (call $args_get (i32.const 64) (i32.const 1024))) (local.set 0 (i32.load (i32.const 44)))"
    + write(1, "(i32.const 1024)", "(local.get 0)")
)
ATTACK = once(Guest(wat=command(_BODY)), expect=Answers("agent\0"))
