"""Two functions with a thousand locals each that call each other: large frames instead of many.

Source: CWE-674, CVE-2024-30266 (stack use of a hostile module). Expected: TRAP.
"""

from client.selftest.attack import Guest, fails, once

_LOCALS = " ".join(["i64"] * 1_000)
_TOUCH = " ".join(f"(local.set {number} (i64.const {number}))" for number in range(0, 1_000, 10))
_WAT = f"""(module (memory (export "memory") 1)
  (func $a (local {_LOCALS}) {_TOUCH} (call $b) (drop (local.get 990)))
  (func $b (local {_LOCALS}) {_TOUCH} (call $a) (drop (local.get 990)))
  (func (export "_start") (call $a)))"""
ATTACK = once(Guest(wat=_WAT), expect=fails("TRAP"))
