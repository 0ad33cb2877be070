"""Everything that the guest's environment holds, written out: the node's own holds a canary.

Source: CWE-526. Expected: nothing but the agent's configuration.
"""

from client.selftest.attack import Answers, Guest, once
from client.selftest.guests import command, write

_BODY = (
    "(local i32) (drop (call $environ_sizes_get (i32.const 40) (i32.const 44)))"
    "(drop (call $environ_get (i32.const 64) (i32.const 1024))) (local.set 0 (i32.load (i32.const 44)))"
    + write(1, "(i32.const 1024)", "(local.get 0)")
)
ATTACK = once(Guest(wat=command(_BODY)), expect=Answers("AGENTFACTORY_CONFIG={}\0"))
