"""Components that import interfaces whose names or versions only resemble granted ones.

Source: CWE-1007. Expected: FORBIDDEN_IMPORT, for a template that was granted ``kv``.
"""

from client.selftest.attack import Attack
from client.selftest.compiling import forbidden
from client.selftest.guests import KV
from client.selftest.stage import Stage

_NAMES = (
    "agentfactory:runtime/kv@0.2.0", "agentfactory:runtime/kv@1.0.0", "agentfactory:runtime/kv",
    "agentfactory:runtime/k-v@0.1.0",
    "agentfact0ry:runtime/kv@0.1.0", "agentfactory:runtimes/kv@0.1.0", "wasi:http/outgoing-handler@0.2.0",
    "wasi:sockets/tcp@9.9.9", "agentfactory:runtime/agents@0.1.0",
)  # fmt: skip

_WAT = """(component (import "NAME" (instance (export "get" (func))))
  (core module $memory-module (memory (export "m") 1) (func (export "realloc") (param i32 i32 i32 i32) (result i32)
    (i32.const 1024)))
  (core instance $memory (instantiate $memory-module))
  (core module $main-module (func (export "process") (param i32 i32) (result i32) (i32.const 0)))
  (core instance $main (instantiate $main-module))
  (func (export "process") (param "input" string) (result (result string (error string)))
    (canon lift (core func $main "process")
      (memory (core memory $memory "m")) (realloc (core func $memory "realloc")))))"""


async def _run(stage: Stage) -> None:
    for name in _NAMES:
        await forbidden(stage, _WAT.replace("NAME", name), abi="component", grants=KV)


ATTACK = Attack(run=_run)
