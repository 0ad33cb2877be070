"""The walk over a binary finds every declared memory and table, and says so when it does not understand one."""

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from sandbox.engine import wat2wasm
from sandbox.inspection_walk import NESTING_MAX, Limits, WalkError, walk
from tests.isolation.components import component

PAGE = 65_536


IMPORTS = """(module (import "a" "f" (func (param i32))) (import "a" "g" (global (mut i64)))
  (import "a" "t" (table 1 funcref)) (import "a" "h" (func)) (memory 1))"""


def limits(minimum: int, maximum: int | None = None, *, imported: bool = False) -> Limits:
    return Limits(minimum=minimum, maximum=maximum, imported=imported)


@pytest.mark.parametrize(
    ("text", "memories", "tables"),
    [
        ("(module)", [], []),
        ("(module (memory 3))", [limits(3 * PAGE)], []),
        ("(module (memory 3 300))", [limits(3 * PAGE, 300 * PAGE)], []),
        ("(module (memory 0 0))", [limits(0, 0)], []),
        ("(module (memory 65536))", [limits(65_536 * PAGE)], []),
        ("(module (table 5 funcref))", [], [limits(5)]),
        ("(module (table 5 9 externref) (table 0 funcref))", [], [limits(5, 9), limits(0)]),
        ('(module (import "env" "memory" (memory 2 4)))', [limits(2 * PAGE, 4 * PAGE, imported=True)], []),
        (
            IMPORTS,
            [limits(PAGE)],
            [limits(1, imported=True)],
        ),
        ("(component)", [], []),
        ("(component (core module (memory 1)) (core module (memory 2)))", [limits(PAGE), limits(2 * PAGE)], []),
        (
            "(component (component (core module (memory 7)) (component (core module (table 1 funcref)))))",
            [limits(7 * PAGE)],
            [limits(1)],
        ),
    ],
)
def test_declarations_are_found(text: str, memories: list[Limits], tables: list[Limits]) -> None:
    found = walk(wat2wasm(text))
    assert (found.memories, found.tables) == (memories, tables)


def test_a_whole_component_is_walked() -> None:
    found = walk(wat2wasm(component(pages=5)))
    assert found.memories == [limits(5 * PAGE), limits(PAGE, imported=True)]


@pytest.mark.parametrize(
    "text",
    [
        "(module (memory 1 2 shared))",
        "(module (memory i64 1))",
        "(module (table i64 1 funcref))",
        "(module (type (func)) (table 1 (ref null 0)))",
    ],
)
def test_what_needs_a_proposal_that_is_off_is_not_understood(text: str) -> None:
    with pytest.raises(WalkError, match="expected"):
        walk(wat2wasm(text))


def test_nesting_is_bounded() -> None:
    text = "(component " * (NESTING_MAX + 2) + ")" * (NESTING_MAX + 2)
    with pytest.raises(WalkError, match="nested"):
        walk(wat2wasm(text))


WHOLE = wat2wasm(component(imports='(import "agentfactory:runtime/log@0.1.0" (instance))'))


@given(st.integers(0, len(WHOLE) - 1))
def test_a_truncated_binary_is_refused_or_walked_never_worse(length: int) -> None:
    try:
        walk(WHOLE[:length])
    except WalkError:
        return


@given(st.binary(max_size=200), st.sampled_from([b"\0asm\x01\0\0\0", b"\0asm\x0d\0\x01\0", b""]))
def test_garbage_is_refused_or_walked_never_worse(data: bytes, preamble: bytes) -> None:
    try:
        walk(preamble + data)
    except WalkError:
        return


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0asm",
        b"\0asm\x02\0\0\0",
        b"\0asm\x01\0\0\0\x05\x03\x01\x08\x00",
        b"\0asm\x01\0\0\0\x05" + b"\x80" * 12,
        b"\0asm\x01\0\0\0\x02\x05\x01\x01a\x01b\x09",
    ],
)
def test_malformed_binaries_are_refused(data: bytes) -> None:
    with pytest.raises(WalkError):
        walk(data)


@given(st.integers(0, 100), st.none() | st.integers(100, 200))
def test_what_is_found_is_what_the_engine_declares(minimum: int, maximum: int | None) -> None:
    wasm = wat2wasm(f'(module (memory (export "m") {minimum} {"" if maximum is None else maximum}))')
    declared = wasmtime.Module(wasmtime.Engine(), wasm).exports[0].type
    assert isinstance(declared, wasmtime.MemoryType)
    (found,) = walk(wasm).memories
    assert (found.minimum, found.maximum) == (
        declared.limits.min * PAGE,
        None if declared.limits.max is None else declared.limits.max * PAGE,
    )
