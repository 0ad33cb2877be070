"""More tables than an instance may have.

Source: CWE-770. Expected: the worker refuses the code when it is loaded; limits count tables, not bytes only.
"""

from client.selftest.attack import Guest, fails, once

_WAT = f'(module {"(table 1 funcref)" * 90} (memory (export "memory") 1) (func (export "_start")))'
ATTACK = once(Guest(wat=_WAT), expect=fails("WORKER_UNAVAILABLE", message="pooling allocator"))
