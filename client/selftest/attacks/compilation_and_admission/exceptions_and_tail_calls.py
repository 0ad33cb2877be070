"""Exceptions, tail calls, typed function references, wide arithmetic and relaxed vectors.

Source: proposals that are switched off. Expected: MODULE_INVALID for each.
"""

from client.selftest.attack import Attack
from client.selftest.compiling import refused_text
from client.selftest.stage import Stage

_TEXTS = (
    '(module (tag $t) (func (export "_start") (throw $t)))',
    '(module (func $f (return_call $f)) (func (export "_start") (call $f)))',
    '(module (type $t (func)) (func $f (export "_start") (call_ref $t (ref.func $f))) (elem declare func $f))',
    '(module (func (export "_start") (param i64 i64) (i64.mul_wide_s (local.get 0) (local.get 1)) drop drop))',
    '(module (func (export "f") (param v128) (result v128) (i8x16.relaxed_swizzle (local.get 0) (local.get 0))))',
)


async def _run(stage: Stage) -> None:
    for text in _TEXTS:
        await refused_text(stage, text)


ATTACK = Attack(run=_run)
