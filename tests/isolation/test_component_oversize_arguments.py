"""Texts and lists that the engine copies before anybody can look at them: at a cost of four fuel, a hundred megabytes.

The first one cannot be prevented, the second one can. What a function does not need must have the right kind and a
sensible size all the same; otherwise a loop over it holds up every other invocation of the worker.
"""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from sandbox.outcome import FailureKind, Outcome
from sandbox.supervisor import Worker, WorkerSettings
from tests.isolation.components import LIMITS, LOG, STREAMS, component, lower, run

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOMY = replace(LIMITS, memory_bytes=64 << 20, host_calls=1_000, wasi_calls=1_000_000, fuel=2_000_000_000)
GROW = "(drop (memory.grow (i32.const 900)))"
KV = """
  (import "agentfactory:runtime/kv@0.1.0" (instance $kv
    (type $k (enum "denied" "conflict" "quota" "not-found" "invalid" "failed" "budget"))
    (export "error-kind" (type $kk (eq $k)))
    (type $e' (record (field "kind" $kk) (field "message" string))) (export "error" (type $e (eq $e')))
    (type $en' (record (field "value" string) (field "version" u64))) (export "entry" (type $en (eq $en')))
    (export "get" (func (param "key" string) (result (result (option $en) (error $e)))))))
"""
UDP_CREATE = """
  (import "wasi:sockets/udp-create-socket@0.2.0" (instance $udp
    (type $c' (enum "access-denied")) (export "error-code" (type $c (eq $c')))
    (export "create-udp-socket" (func (param "family" string) (result (result (error $c)))))))
"""
RESOLVE = """
  (import "wasi:sockets/network@0.2.0" (instance $net (export "network" (type (sub resource)))))
  (alias export $net "network" (type $network))
  (import "wasi:sockets/instance-network@0.2.0" (instance $instance-network
    (export "network" (type $n (eq $network))) (export "instance-network" (func (result (own $n))))))
  (import "wasi:sockets/ip-name-lookup@0.2.0" (instance $lookup (export "network" (type $n (eq $network)))
    (type $c' (enum "access-denied")) (export "error-code" (type $c (eq $c')))
    (export "resolve-addresses"
      (func (param "network" (borrow $n)) (param "name" string) (result (result (error $c)))))))
"""
STDIN = """
  (import "wasi:io/streams@0.2.0" (instance $streams (export "input-stream" (type $i (sub resource)))
    (type $se' (variant (case "closed"))) (export "stream-error" (type $se (eq $se')))
    (export "[method]input-stream.read"
      (func (param "self" (borrow $i)) (param "len" string) (result (result (error $se)))))))
  (alias export $streams "input-stream" (type $input-stream))
  (import "wasi:cli/stdin@0.2.0" (instance $stdin (export "input-stream" (type $q (eq $input-stream)))
    (export "get-stdin" (func (result (own $q))))))
"""


def looping(call: str, *, before: str = "") -> str:
    return (
        GROW + before + f"(loop $more {call} (local.set $n (i32.add (local.get $n) (i32.const 1)))"
        " (br_if $more (i32.lt_u (local.get $n) (i32.const 400)))) (call $answer (i32.const 0) (i32.const 0))"
    )


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def worker() -> AsyncIterator[Worker]:
    started = await Worker.start(WorkerSettings(slots=16))
    yield started
    await started.stop()


async def attacked(worker: Worker, text: str, **named: object) -> Outcome:
    outcome = await run(worker, text, limits=ROOMY, **named)  # type: ignore[arg-type]
    assert (await run(worker, component())).output == b"hello"
    return outcome


async def test_long_texts_for_the_log_end_the_invocation_soon(worker: Worker) -> None:
    outcome = await attacked(
        worker,
        component(
            looping("(call $log (i32.const 1) (i32.const 65536) (i32.const 8388608))"),
            imports=LOG,
            lowers=lower("log", "log", "log"),
            core_imports='(import "h" "log" (func $log (param i32 i32 i32)))',
        ),
    )
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.HOST_CALLS
    assert outcome.usage.wasi_calls <= 3


async def test_a_log_line_somewhat_too_long_is_cut_as_before(worker: Worker) -> None:
    outcome = await attacked(
        worker,
        component(
            "(call $log (i32.const 1) (i32.const 0) (i32.const 100000)) (call $answer (i32.const 0) (i32.const 0))",
            imports=LOG,
            lowers=lower("log", "log", "log"),
            core_imports='(import "h" "log" (func $log (param i32 i32 i32)))',
        ),
    )
    assert outcome.failure is None
    assert outcome.logs_cut


async def test_long_texts_for_a_host_call_end_the_invocation_soon(worker: Worker) -> None:
    outcome = await attacked(
        worker,
        component(
            looping("(call $get (i32.const 65536) (i32.const 8388608) (i32.const 256))"),
            imports=KV,
            lowers=lower("get", "kv", "get"),
            core_imports='(import "h" "get" (func $get (param i32 i32 i32)))',
        ),
        granted=frozenset({"agentfactory:runtime/kv@0.1.0"}),
    )
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.HOST_CALLS
    assert outcome.usage.host_calls <= 3


async def test_a_long_list_written_when_the_log_is_full_is_a_trap(worker: Worker) -> None:
    call = "(call $write (local.get $n) (i32.const 65536) (i32.const {}) (i32.const 256))"
    outcome = await run(
        worker,
        component(
            GROW
            + "(local.set $n (call $stdout))"
            + call.format(16_384)
            + call.format(16_384)
            + "(i32.store (i32.const 512) (i32.const 0)) (loop $more "
            + call.format(65_536)
            + "(i32.store (i32.const 512) (i32.add (i32.load (i32.const 512)) (i32.const 1)))"
            "(br_if $more (i32.lt_u (i32.load (i32.const 512)) (i32.const 400))))"
            "(call $answer (i32.const 0) (i32.const 0))",
            imports=STREAMS,
            lowers=lower("write", "streams", "[method]output-stream.write") + lower("stdout", "stdout", "get-stdout"),
            core_imports='(import "h" "write" (func $write (param i32 i32 i32 i32)))'
            '(import "h" "stdout" (func $stdout (result i32)))',
        ),
        limits=replace(ROOMY, log_bytes=4_096),
    )
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.TRAP
    assert outcome.usage.wasi_calls <= 4
    assert (await run(worker, component())).output == b"hello"


@pytest.mark.parametrize(
    ("imports", "lowers", "core_imports", "call", "before"),
    [
        pytest.param(
            UDP_CREATE,
            lower("create", "udp", "create-udp-socket"),
            '(import "h" "create" (func $create (param i32 i32 i32)))',
            "(call $create (i32.const 65536) (i32.const 8388608) (i32.const 256))",
            "",
            id="an address family that is a text",
        ),
        pytest.param(
            STDIN,
            lower("read", "streams", "[method]input-stream.read") + lower("stdin", "stdin", "get-stdin"),
            '(import "h" "read" (func $read (param i32 i32 i32 i32))) (import "h" "stdin" (func $stdin (result i32)))',
            "(call $read (i32.load (i32.const 512)) (i32.const 65536) (i32.const 8388608) (i32.const 256))",
            "(i32.store (i32.const 512) (call $stdin))",
            id="a length that is a text",
        ),
        pytest.param(
            RESOLVE,
            lower("resolve", "lookup", "resolve-addresses") + lower("net", "instance-network", "instance-network"),
            '(import "h" "resolve" (func $resolve (param i32 i32 i32 i32)))(import "h" "net" (func $net (result i32)))',
            "(call $resolve (i32.load (i32.const 512)) (i32.const 65536) (i32.const 8388608) (i32.const 256))",
            "(i32.store (i32.const 512) (call $net))",
            id="a name of eight megabytes",
        ),
    ],
)
async def test_an_argument_that_nobody_needs_has_its_kind_and_size_all_the_same(
    worker: Worker, imports: str, lowers: str, core_imports: str, call: str, before: str
) -> None:
    outcome = await attacked(
        worker,
        component(looping(call, before=before), imports=imports, lowers=lowers, core_imports=core_imports),
    )
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.TRAP
    assert outcome.usage.wasi_calls <= 3
