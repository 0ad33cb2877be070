"""Structures and arrays of the garbage collector, which is host memory outside of every limit.

Source: proposals that are switched off. Expected: MODULE_INVALID.
"""

from client.selftest.attack import Attack
from client.selftest.compiling import refused_text
from client.selftest.stage import Stage

_WAT = """(module (type $a (array (mut i64)))
  (func (export "_start") (drop (array.new $a (i64.const 0) (i32.const 1000000)))))"""


async def _run(stage: Stage) -> None:
    await refused_text(stage, _WAT)


ATTACK = Attack(run=_run)
