"""Components that import what does not exist here, lie about types, or flood what does exist."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from sandbox.outcome import FailureKind
from sandbox.supervisor import Worker, WorkerError, WorkerSettings
from tests.isolation.components import LOG, POLL, STREAMS, component, lower, run

pytestmark = pytest.mark.asyncio(loop_scope="module")

KV_GET = """
  (import "agentfactory:runtime/kv@0.1.0" (instance $kv
    (export "delete" (func (param "key" string) (param "expected" (option u64)) (result (result))))))
"""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def worker() -> AsyncIterator[Worker]:
    started = await Worker.start(WorkerSettings(slots=16))
    yield started
    await started.stop()


async def is_healthy(worker: Worker) -> bool:
    return (await run(worker, component())).output == b"hello"


async def test_a_component_answers(worker: Worker) -> None:
    assert (await run(worker, component(), "é\0".encode())).output == "é\0".encode()


@pytest.mark.parametrize(
    "name",
    [
        "agentfactory:runtime/kv@0.1.1",
        "agentfactory:runtime/kv@0.2.0",
        "agentfactory:runtime/secrets@0.1.0",
        "agent-factory:runtime/kv@0.1.0",
        "wasi:io/poll@0.3.0",
        "wasi:io/poll",
        "wasi:io/poll@0.2.0-rc",
        "wasi:http/types@0.2.0",
        "wasi:cli/run@0.2.0",
        "wasi:io-x/poll@0.2.0",
        "other:io/poll@0.2.0",
    ],
)
async def test_an_interface_that_does_not_exist_is_refused_at_loading(worker: Worker, name: str) -> None:
    with pytest.raises(WorkerError, match="expected imports that exist here"):
        await run(worker, component(imports=f'(import "{name}" (instance (export "f" (func))))'))
    assert await is_healthy(worker)


async def test_a_bare_function_import_is_refused_at_loading(worker: Worker) -> None:
    with pytest.raises(WorkerError, match="expected imports that exist here"):
        await run(worker, component(imports='(import "log" (func (param "m" string)))'))


@pytest.mark.parametrize(
    ("interface", "item"),
    [
        ("wasi:clocks/monotonic-clock@0.2.0", '(export "now" (func))'),
        ("wasi:clocks/monotonic-clock@0.2.0", '(export "now" (func (param "x" u32) (result u64)))'),
        ("wasi:io/poll@0.2.0", '(export "pollable-2" (type (sub resource)))'),
        ("wasi:io/poll@0.2.0", '(export "inner" (instance (export "f" (func))))'),
    ],
)
async def test_another_shape_than_ours_is_refused_at_loading(worker: Worker, interface: str, item: str) -> None:
    with pytest.raises(WorkerError, match="expected"):
        await run(worker, component(imports=f'(import "{interface}" (instance {item}))'))
    assert await is_healthy(worker)


@pytest.mark.parametrize(
    ("lowered", "signature", "call"),
    [
        (
            '(param "len" string) (result (list u8))',
            "(param i32 i32 i32)",
            "(call $f (i32.const 0) (i32.const 4) (i32.const 64))",
        ),
        ('(param "len" f64) (result (list u8))', "(param f64 i32)", "(call $f (f64.const 1) (i32.const 64))"),
        ('(param "len" u64) (result u8)', "(param i64) (result i32)", "(drop (call $f (i64.const 9)))"),
        ('(param "len" u64) (result string)', "(param i64 i32)", "(call $f (i64.const 9) (i32.const 64))"),
    ],
)
async def test_another_type_than_ours_is_a_trap_not_a_crash(
    worker: Worker, lowered: str, signature: str, call: str
) -> None:
    text = component(
        f"{call} (call $answer (local.get 0) (local.get 1))",
        imports=f'(import "wasi:random/random@0.2.0" (instance $r (export "get-random-bytes" (func {lowered}))))',
        lowers=lower("f", "r", "get-random-bytes"),
        core_imports=f'(import "h" "f" (func $f {signature}))',
    )
    outcome = await run(worker, text)
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.TRAP
    assert await is_healthy(worker)


async def test_a_function_that_wasi_has_and_this_sandbox_has_not_is_refused_when_called(worker: Worker) -> None:
    text = component(
        "(call $f) unreachable",
        imports='(import "wasi:sockets/tcp@0.2.0" (instance $r (export "start-bind" (func))))',
        lowers='(core func $f (canon lower (func $r "start-bind")))',
        core_imports='(import "h" "f" (func $f))',
    )
    outcome = await run(worker, text)
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.POLICY
    assert "start-bind" in outcome.failure.message


async def test_a_flood_of_handles_is_stopped(worker: Worker) -> None:
    text = component(
        "(loop $again (drop (call $f (i64.const 1000000000000))) (br $again)) unreachable",
        imports=POLL,
        lowers=lower("f", "clock", "subscribe-duration"),
        core_imports='(import "h" "f" (func $f (param i64) (result i32)))',
    )
    outcome = await run(worker, text)
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.HOST_CALLS
    assert "open handles" in outcome.failure.message
    assert await is_healthy(worker)


async def test_handles_that_are_dropped_may_be_many(worker: Worker) -> None:
    text = component(
        "(local.set $n (i32.const 5000))"
        "(loop $again (call $d (call $f (i64.const 1))) (local.set $n (i32.sub (local.get $n) (i32.const 1)))"
        "(br_if $again (local.get $n)))"
        "(call $answer (local.get 0) (local.get 1))",
        imports=POLL,
        lowers=lower("f", "clock", "subscribe-duration") + "(core func $d (canon resource.drop $pollable))",
        core_imports='(import "h" "f" (func $f (param i64) (result i32))) (import "h" "d" (func $d (param i32)))',
    )
    assert (await run(worker, text)).output == b"hello"


async def test_polling_nothing_is_a_trap(worker: Worker) -> None:
    text = component(
        "(call $f (i32.const 0) (i32.const 0) (i32.const 64)) unreachable",
        imports=POLL,
        lowers=lower("f", "poll", "poll"),
        core_imports='(import "h" "f" (func $f (param i32 i32 i32)))',
    )
    outcome = await run(worker, text)
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.TRAP
    assert await is_healthy(worker)


async def test_polling_too_many_is_stopped_before_they_are_converted(worker: Worker) -> None:
    text = component(
        "(local.set $n (call $s (i64.const 1)))"
        "(loop $fill (i32.store (i32.add (i32.const 1024) (i32.mul (i32.const 4) (local.get 1))) (local.get $n))"
        "(local.set 1 (i32.add (local.get 1) (i32.const 1))) (br_if $fill (i32.lt_u (local.get 1) (i32.const 5000))))"
        "(call $f (i32.const 1044) (i32.const 4000) (i32.const 64)) unreachable",
        imports=POLL,
        lowers=lower("s", "clock", "subscribe-duration") + lower("f", "poll", "poll"),
        core_imports='(import "h" "s" (func $s (param i64) (result i32)))'
        '(import "h" "f" (func $f (param i32 i32 i32)))',
    )
    outcome = await run(worker, text)
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.TRAP
    assert await is_healthy(worker)


@pytest.mark.parametrize("length", [16_385, 500_000, 3_000_000, 10_000_000])
async def test_a_giant_list_of_bytes_is_refused_by_its_length(worker: Worker, length: int) -> None:
    text = component(
        f"(call $w (call $g) (i32.const 0) (i32.const {length}) (i32.const 64)) unreachable",
        imports=STREAMS,
        pages=160,
        lowers=lower("g", "stdout", "get-stdout") + lower("w", "streams", "[method]output-stream.write"),
        core_imports='(import "h" "g" (func $g (result i32))) (import "h" "w" (func $w (param i32 i32 i32 i32)))',
    )
    outcome = await run(worker, text)
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.TRAP
    assert await is_healthy(worker)


async def test_what_is_written_becomes_log_lines(worker: Worker) -> None:
    text = component(
        "(call $w (call $g) (local.get 0) (local.get 1) (i32.const 64)) (call $answer (local.get 0) (local.get 1))",
        imports=STREAMS,
        lowers=lower("g", "stdout", "get-stdout") + lower("w", "streams", "[method]output-stream.write"),
        core_imports='(import "h" "g" (func $g (result i32))) (import "h" "w" (func $w (param i32 i32 i32 i32)))',
    )
    outcome = await run(worker, text, b"first\nsecond")
    assert [(line.level, line.message) for line in outcome.logs] == [("info", "first"), ("info", "second")]


async def test_a_flood_of_giant_log_messages_is_cut_and_then_stopped(worker: Worker) -> None:
    text = component(
        "(local.set $n (i32.const 1000))"
        "(loop $again (call $l (i32.const 1) (i32.const 65536) (i32.const 2000000))"
        "(local.set $n (i32.sub (local.get $n) (i32.const 1))) (br_if $again (local.get $n)))"
        "(call $answer (local.get 0) (local.get 1))",
        imports=LOG,
        pages=40,
        lowers=lower("l", "log", "log"),
        core_imports='(import "h" "l" (func $l (param i32 i32 i32)))',
    )
    outcome = await run(worker, text)
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.HOST_CALLS
    assert outcome.logs_cut
    assert outcome.usage.log_bytes <= 4_096


async def test_an_import_without_its_grant_stops_an_authors_component(worker: Worker) -> None:
    outcome = await run(worker, component(imports=KV_GET))
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.POLICY
    assert "agentfactory:runtime/kv@0.1.0" in outcome.failure.message
    granted = await run(worker, component(imports=KV_GET), granted=frozenset({"agentfactory:runtime/kv@0.1.0"}))
    assert granted.output == b"hello"


async def test_an_error_is_the_guests_word(worker: Worker) -> None:
    body = "(i32.store8 (i32.const 16) (i32.const 1)) (i32.store (i32.const 20) (local.get 0))"
    text = component(body + "(i32.store (i32.const 24) (local.get 1)) (i32.const 16)")
    outcome = await run(worker, text, b"no \x1b[2J luck")
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.GUEST_ERROR
    assert outcome.failure.message.isprintable()
    remembered = await run(worker, text, b'{"kind": "memory", "message": "used up"}')
    assert remembered.failure is not None
    assert remembered.failure.kind is FailureKind.MEMORY
    for odd in (b"{", b"{}", b'{"message": 3}', b"[" * 50_000, b'{"kind": 3, "message": "\\ud800", "line": "x"}'):
        outcome = await run(worker, text, odd)
        assert outcome.failure is not None
        assert outcome.failure.kind is FailureKind.GUEST_ERROR


async def test_many_memories_do_not_multiply_the_limit(worker: Worker) -> None:
    extra = "(core module $x (memory 200))" + "(core instance (instantiate $x))" * 4
    outcome = await run(worker, component(imports=extra))
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.MEMORY
    assert await is_healthy(worker)


async def test_a_result_pointer_outside_memory_is_a_trap(worker: Worker) -> None:
    for pointer in (-1, -4, 131_072, 131_064):
        outcome = await run(worker, component(f"(i32.const {pointer})"))
        assert outcome.failure is not None
        assert outcome.failure.kind is FailureKind.TRAP
    assert await is_healthy(worker)


async def test_output_that_is_not_utf_8_is_a_trap(worker: Worker) -> None:
    text = component("(i32.store (i32.const 128) (i32.const 0x80ffc0ff)) (call $answer (i32.const 128) (i32.const 4))")
    outcome = await run(worker, text)
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.TRAP
    assert await is_healthy(worker)


async def test_a_wrong_export_is_refused_at_loading(worker: Worker) -> None:
    text = (
        component()
        .replace('"input" string', '"input" u32')
        .replace("(param i32 i32) (result i32) (local", "(param i32) (result i32) (local")
    )
    with pytest.raises(WorkerError, match="expected process"):
        await run(worker, text.replace("(local.get 1)", "(local.get 0)"))
    with pytest.raises(WorkerError, match="expected the export process"):
        await run(worker, "(component)")


async def test_memory_is_fresh_in_every_invocation(worker: Worker) -> None:
    """The same program, in the same slots: one fills its memory, the next looks for anything that is not zero."""
    text = component(
        "(if (i32.eq (i32.load8_u (local.get 0)) (i32.const 119))"
        "  (then (memory.fill (i32.const 65536) (i32.const 170) (i32.const 6488064)))"
        "  (else (local.set $n (i32.const 65536))"
        "    (loop $more (if (i64.ne (i64.load (local.get $n)) (i64.const 0)) (then unreachable))"
        "      (local.set $n (i32.add (local.get $n) (i32.const 8)))"
        "      (br_if $more (i32.lt_u (local.get $n) (i32.const 6553600))))))"
        "(call $answer (local.get 0) (local.get 1))",
        pages=100,
    )
    for _ in range(40):
        assert (await run(worker, text, b"write")).output == b"write"
        assert (await run(worker, text, b"look")).output == b"look"
