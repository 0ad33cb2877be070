"""A loop without end in the module's start function, which runs while it is instantiated.

Source: CWE-835. Expected: FUEL: instantiation is metered too.
"""

from client.selftest.attack import Guest, fails, once

_WAT = '(module (memory (export "memory") 1) (func $s (loop $x (br $x))) (start $s) (func (export "_start")))'
ATTACK = once(Guest(wat=_WAT), expect=fails("FUEL"))
