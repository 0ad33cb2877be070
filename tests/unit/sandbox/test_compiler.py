"""What the compiler accepts, how it reads its child, and its job itself, run here."""

import json

import pytest

from sandbox.compiler import (
    COMPONENT_PREAMBLE,
    CORE_PREAMBLE,
    CompilerError,
    _read_answer,
    abi_of,
    refuse_what_is_not_wasm,
    sensible,
)
from sandbox.compiler_job import RefusedModuleError, compile_code, inspect_module
from sandbox.engine import fingerprint, wat2wasm
from sandbox.inspection import MemoryDeclaration, ModuleFacts, TableDeclaration
from templates.capabilities import ModuleReport
from tests.isolation.components import LOG, POLL, component


@pytest.mark.parametrize("preamble", [CORE_PREAMBLE, COMPONENT_PREAMBLE])
def test_wasm_is_accepted_by_its_first_eight_bytes(preamble: bytes) -> None:
    refuse_what_is_not_wasm(preamble + b"anything", bytes_max=100)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "NOT_WASM"),
        (b"\0asm", "NOT_WASM"),
        (b"\0asm\x02\0\0\0", "NOT_WASM"),
        (b"\0asm\x0d\0\x02\0", "NOT_WASM"),
        (b"\0asm\x0a\0\x01\0", "NOT_WASM"),
        (b"\x7fELF\x02\x01\x01", "COMPILED_CODE"),
        (b"MZ\x90\0", "NOT_WASM"),
        (b"(module)", "NOT_WASM"),
        (b"PK\x03\x04", "NOT_WASM"),
        (b"#!/bin/sh", "NOT_WASM"),
        (CORE_PREAMBLE + b"x" * 93, "MODULE_SIZE"),
    ],
)
def test_anything_else_is_refused_before_it_is_parsed(data: bytes, code: str) -> None:
    with pytest.raises(CompilerError, match="expected") as refused:
        refuse_what_is_not_wasm(data, bytes_max=100)
    assert refused.value.code == code


def test_compiled_code_of_this_engine_is_refused_as_such() -> None:
    header, code = compile_code(wat2wasm('(module (func (export "_start")))'))
    assert header == {"engine_fingerprint": fingerprint(), "kind": "module", "exports": ["_start"]}
    with pytest.raises(CompilerError) as refused:
        refuse_what_is_not_wasm(code, bytes_max=len(code))
    assert refused.value.code == "COMPILED_CODE"


@pytest.mark.parametrize(
    ("kind", "exports", "abi"),
    [
        ("module", {"_start", "memory"}, "command"),
        ("component", {"process"}, "component"),
        ("component", {"process", "load", "exports"}, "image"),
    ],
)
def test_exports_decide_the_abi(kind: str, exports: set[str], abi: str) -> None:
    assert abi_of(kind, frozenset(exports)) == abi


@pytest.mark.parametrize(
    ("kind", "exports"), [("module", {"process"}), ("component", {"_start"}), ("component", {"load"})]
)
def test_a_module_that_a_node_could_not_call_is_refused(kind: str, exports: set[str]) -> None:
    with pytest.raises(CompilerError) as refused:
        abi_of(kind, frozenset(exports))
    assert refused.value.code == "NO_ENTRY"


def framed(header: object, body: bytes = b"") -> bytes:
    encoded = json.dumps(header).encode()
    return len(encoded).to_bytes(8, "big") + encoded + body


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (b"", 0, "COMPILER_CRASH"),
        (b"\0" * 8, 0, "COMPILER_CRASH"),
        (framed({})[:-1], 0, "COMPILER_CRASH"),
        (b"\xff" * 8 + b"{}", 0, "COMPILER_CRASH"),
        (framed({"kind": "module"}), 1, "COMPILER_CRASH"),
        (framed({"kind": "module"}), -11, "COMPILER_CRASH"),
        (b"", -9, "COMPILER_LIMIT"),
        (b"", -24, "COMPILER_LIMIT"),
        (b"", -6, "COMPILER_LIMIT"),
        (framed({"error": {"code": "MODULE_INVALID", "message": "no"}}), 0, "MODULE_INVALID"),
        (framed({"error": {"code": "SOMETHING_ELSE", "message": "no"}}), 0, "COMPILER_CRASH"),
        (framed({"error": {"code": "MODULE_INVALID"}}), 0, "COMPILER_CRASH"),
        (framed({"error": 5}), 0, "COMPILER_CRASH"),
        (framed([]), 0, "COMPILER_CRASH"),
        ((100_000).to_bytes(8, "big") + b"[" * 100_000, 0, "COMPILER_CRASH"),
        ((1).to_bytes(8, "big") + b"\xff", 0, "COMPILER_CRASH"),
    ],
)
def test_a_child_without_a_whole_answer_is_an_error_of_its_kind(answer: bytes, status: int, code: str) -> None:
    with pytest.raises(CompilerError) as failed:
        _read_answer(answer, status)
    assert failed.value.code == code


def test_a_header_that_lacks_sense_is_a_crash_of_the_compiler() -> None:
    header: dict[str, object] = {"kind": "module", "exports": 5}
    with pytest.raises(CompilerError, match="lacks sense") as failed, sensible():
        abi_of(str(header["kind"]), frozenset(header["exports"]))  # type: ignore[call-overload]  # as it comes
    assert failed.value.code == "COMPILER_CRASH"


def test_a_whole_answer_is_its_header_and_what_follows() -> None:
    assert _read_answer(framed({"kind": "module"}, b"code"), 0) == ({"kind": "module"}, b"code")


@pytest.mark.parametrize(
    "text",
    [
        "(module (memory i64 1))",
        "(module (memory 1 2 shared))",
        "(module (memory 1) (memory 1))",
        "(module (tag))",
        "(module (func (result i32) (return_call 0)))",
        "(module (type (struct)))",
        "(module (func (result i32)))",
    ],
)
def test_proposals_that_are_off_and_invalid_code_are_refused_by_both_jobs(text: str) -> None:
    wasm = wat2wasm(text)
    with pytest.raises(RefusedModuleError):
        compile_code(wasm)
    with pytest.raises(RefusedModuleError):
        inspect_module(wasm)


def test_inspection_tells_names_memories_and_tables() -> None:
    header, body = inspect_module(wat2wasm(component(imports=POLL + LOG, pages=7)))
    assert body == b""
    assert header["kind"] == "component"
    assert header["imports"] == [
        "agentfactory:runtime/log@0.1.0",
        "wasi:clocks/monotonic-clock@0.2.0",
        "wasi:io/poll@0.2.0",
    ]
    assert header["exports"] == ["process"]
    assert header["memories"] == [(7 * 65_536, None, False), (65_536, None, True)]


def test_inspection_of_a_core_module_tells_pairs() -> None:
    text = '(module (import "wasi_snapshot_preview1" "fd_write" (func)) (import "env" "memory" (memory 1 2))'
    header, _ = inspect_module(wat2wasm(text + '(table 3 funcref) (func (export "_start")) (func (export "a")))'))
    assert header["imports"] == ["env.memory", "wasi_snapshot_preview1.fd_write"]
    assert header["exports"] == ["_start", "a"]
    assert header["tables"] == [(3, None, False)]


def test_facts_are_a_module_report() -> None:
    """The JSON is what ``templates.capabilities`` reads: two processes compare it."""
    facts = ModuleFacts(
        sha256="ab" * 32,
        length=1_000,
        kind="component",
        imports=("agentfactory:runtime/kv@0.1.0",),
        exports=("process",),
        memories=(
            MemoryDeclaration(bytes_min=65_536, bytes_max=None),
            MemoryDeclaration(bytes_min=0, bytes_max=None, imported=True),
        ),
        tables=(TableDeclaration(elements_min=1, elements_max=None),),
    )
    report = ModuleReport.from_json(facts.to_json())
    assert report.to_json() == facts.to_json()
    assert [memory.bytes_min for memory in report.memories] == [65_536]
