"""A function that calls itself without end.

Source: CWE-674. Expected: TRAP: the guest's stack is bounded and is not the host's.
"""

from client.selftest.attack import Guest, fails, once

_WAT = '(module (memory (export "memory") 1) (func $r (call $r)) (func (export "_start") (call $r)))'
ATTACK = once(Guest(wat=_WAT), expect=fails("TRAP"))
