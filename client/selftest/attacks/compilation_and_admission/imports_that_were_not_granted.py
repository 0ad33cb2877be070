"""Modules that import native libraries, tables, other host functions and other WASI worlds.

Source: CWE-862. Expected: FORBIDDEN_IMPORT: nothing exists but virtual WASI and the one host call.
"""

from client.selftest.attack import Attack
from client.selftest.compiling import forbidden
from client.selftest.stage import Stage

_IMPORTS = (
    '"agentfactory" "open" (func (param i32 i32 i32 i32 i32 i32) (result i32))', '"env" "system" (func (param i32))',
    '"wasi_unstable" "fd_write" (func)', '"wasi" "thread-spawn" (func (param i32) (result i32))',
    '"env" "table" (table 1 funcref)', '"wasi_snapshot_preview1" "sock_open" (func)', '"" "" (func)',
)  # fmt: skip


async def _run(stage: Stage) -> None:
    for each in _IMPORTS:
        await forbidden(stage, f'(module (import {each}) (memory (export "memory") 1) (func (export "_start")))')


ATTACK = Attack(run=_run)
