"""Threads and shared memory, with atomic waits that block their thread.

Source: proposals that are switched off. Expected: MODULE_INVALID.
"""

from client.selftest.attack import Attack
from client.selftest.compiling import refused_text
from client.selftest.stage import Stage

_WAT = """(module (memory (export "memory") 1 1 shared)
  (func (export "_start") (drop (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1)))))"""


async def _run(stage: Stage) -> None:
    await refused_text(stage, _WAT)


ATTACK = Attack(run=_run)
