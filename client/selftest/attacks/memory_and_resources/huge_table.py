"""A table of ten million elements: host memory that no memory limit counts.

Source: CWE-789. Expected: the worker refuses the code when it is loaded; elements are limited.
"""

from client.selftest.attack import Guest, fails, once

_WAT = '(module (table 10000000 funcref) (memory (export "memory") 1) (func (export "_start")))'
ATTACK = once(Guest(wat=_WAT), expect=fails("WORKER_UNAVAILABLE", message="pooling allocator"))
