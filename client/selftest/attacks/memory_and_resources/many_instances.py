"""A component of five hundred instances: each costs the host, whatever its memory.

Source: CWE-770. Expected: the worker refuses the code when it is loaded, or its instantiation fails.
"""

from client.selftest.attack import Guest, fails, once

_INSTANCES = 500
_WAT = f"""(component
  (core module $empty (func (export "f")))
  {"(core instance (instantiate $empty))" * _INSTANCES}
  (core module $main-module (memory (export "m") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
    (func (export "process") (param i32 i32) (result i32) (i32.const 0)))
  (core instance $main (instantiate $main-module))
  (func (export "process") (param "input" string) (result (result string (error string)))
    (canon lift (core func $main "process")
      (memory (core memory $main "m")) (realloc (core func $main "realloc")))))"""
ATTACK = once(Guest(wat=_WAT, abi="component"), expect=fails("WORKER_UNAVAILABLE", "TRAP", "MEMORY", "POLICY"))
