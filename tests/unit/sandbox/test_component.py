"""Components under a manual clock: virtual WASI, limits, and every refusal, without a worker process."""

import pytest
from wasmtime import component as wit

from sandbox import wasi2_io
from sandbox.component import ComponentProgram
from sandbox.component_guest import RANDOM_BYTES_PER_CALL_MAX
from sandbox.component_linker import interface_for
from sandbox.engine import EngineError
from sandbox.limits import SandboxLimits
from sandbox.outcome import FailureKind
from tests.isolation.components import LOG, POLL, STREAMS, compiled, component, lower
from tests.unit.sandbox.in_process import Ended, World

ANSWER = "(call $answer (local.get 0) (local.get 1))"


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def run(world: World, text: str, data: bytes = b"hello", **limits: int) -> Ended:
    return world.run(world.program(compiled(text)), data, limits=SandboxLimits(**limits))


def kind_of(ended: Ended) -> FailureKind | None:
    return None if ended.failure is None else ended.failure.kind


def test_a_component_answers(world: World) -> None:
    ended = run(world, component())
    assert (ended.output, ended.failure, ended.usage.wasi_calls) == (b"hello", None, 0)


@pytest.mark.parametrize(
    ("name", "exists"),
    [
        ("wasi:io/poll@0.2.0", True),
        ("wasi:io/poll@0.2.99", True),
        ("wasi:io/poll@0.2.100", False),
        ("wasi:io/poll@0.3.0", False),
        ("wasi:io/poll@0.2", False),
        ("wasi:io/poll@0.2.01", False),
        ("wasi:io/poll", False),
        ("wasi:io/poll@0.2.0\n", False),
        ("wasi:http/types@0.2.0", False),
        ("agentfactory:runtime/kv@0.1.0", True),
        ("agentfactory:runtime/kv@0.1.1", False),
        ("agentfactory:runtime/kv", False),
        ("", False),
    ],
)
def test_interfaces_exist_by_exact_name(name: str, exists: bool) -> None:  # noqa: FBT001 - a parameter
    assert (interface_for(name) is not None) is exists


@pytest.mark.parametrize(
    "item",
    [
        '(export "now" (func))',
        '(export "now" (func (param "x" u32) (result u64)))',
        '(export "watch" (type (sub resource)))',
        '(export "inner" (instance (export "f" (func))))',
    ],
)
def test_another_shape_is_refused_at_loading(world: World, item: str) -> None:
    text = component(imports=f'(import "wasi:clocks/monotonic-clock@0.2.0" (instance {item}))')
    with pytest.raises(EngineError, match="expected"):
        world.program(compiled(text))


def test_an_import_that_does_not_exist_is_refused_at_loading(world: World) -> None:
    text = component(imports='(import "wasi:http/types@0.2.0" (instance (export "f" (func))))')
    with pytest.raises(EngineError, match="expected imports that exist here, got wasi:http/types"):
        world.program(compiled(text))


def test_bytes_that_are_not_compiled_code_are_refused(world: World) -> None:
    with pytest.raises(EngineError):
        ComponentProgram.deserialize(world.engine, b"\x7fELF", world._turn, abi="component")
    with pytest.raises(EngineError):
        ComponentProgram.deserialize_file(world.engine, "/dev/null", world._turn, abi="component")


def test_an_image_must_export_load(world: World) -> None:
    with pytest.raises(EngineError, match="expected the export load"):
        world.program(compiled(component()), abi="image")


SLEEPER = component(
    "(call $block (call $after (i64.const 7000000000))) " + ANSWER,
    imports=POLL,
    lowers=lower("after", "clock", "subscribe-duration") + lower("block", "poll", "[method]pollable.block"),
    core_imports='(import "h" "after" (func $after (param i64) (result i32)))'
    '(import "h" "block" (func $block (param i32)))',
)


def test_sleeping_suspends_until_the_clock_says_so(world: World) -> None:
    began = world.clock.now_ns
    assert run(world, SLEEPER).output == b"hello"
    assert 7_000_000_000 <= world.clock.now_ns - began < 8_000_000_000


def test_sleeping_past_the_deadline_is_a_deadline(world: World) -> None:
    assert kind_of(run(world, SLEEPER, wall_ms=100)) is FailureKind.DEADLINE


def test_a_pollable_that_is_ready_does_not_suspend(world: World) -> None:
    text = SLEEPER.replace("7000000000", "0")
    ended = run(world, text)
    assert (ended.output, ended.usage.wasi_calls) == (b"hello", 2)


def poller(first_ns: int, second_ns: int) -> str:
    """Polls two timers and answers with the count and the first index that is ready, as two digits."""
    return component(
        f"(i32.store (i32.const 1024) (call $after (i64.const {first_ns})))"
        f"(i32.store (i32.const 1028) (call $after (i64.const {second_ns})))"
        "(call $poll (i32.const 1024) (i32.const 2) (i32.const 64))"
        "(i32.store8 (i32.const 128) (i32.add (i32.const 48) (i32.load (i32.const 68))))"
        "(i32.store8 (i32.const 129) (i32.add (i32.const 48) (i32.load (i32.load (i32.const 64)))))"
        "(call $answer (i32.const 128) (i32.const 2))",
        imports=POLL,
        lowers=lower("after", "clock", "subscribe-duration") + lower("poll", "poll", "poll"),
        core_imports='(import "h" "after" (func $after (param i64) (result i32)))'
        '(import "h" "poll" (func $poll (param i32 i32 i32)))',
    )


@pytest.mark.parametrize(
    ("first_ns", "second_ns", "answer"),
    [(10**9, 10**6, b"11"), (10**6, 10**9, b"10"), (0, 10**9, b"10"), (0, 0, b"20")],
)
def test_poll_answers_with_the_indices_of_what_is_ready(
    world: World, first_ns: int, second_ns: int, answer: bytes
) -> None:
    assert run(world, poller(first_ns, second_ns)).output == answer


def test_polling_nothing_is_a_trap(world: World) -> None:
    ended = run(world, poller(0, 0).replace("(i32.const 1024) (i32.const 2)", "(i32.const 1024) (i32.const 0)"))
    assert kind_of(ended) is FailureKind.TRAP


def test_a_fault_of_ours_while_the_guest_waits_ends_that_guest(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wasi2_io, "_ready", lambda deadlines, now_ns: [] if now_ns < max(deadlines) else 1 / 0)
    ended = run(world, poller(10**9, 10**9))
    assert kind_of(ended) is FailureKind.TRAP
    assert ended.failure is not None
    assert ended.failure.message == "division by zero"


def test_open_handles_are_capped(world: World) -> None:
    text = component(
        "(loop $again (drop (call $after (i64.const 1))) (br $again)) unreachable",
        imports=POLL,
        lowers=lower("after", "clock", "subscribe-duration"),
        core_imports='(import "h" "after" (func $after (param i64) (result i32)))',
    )
    ended = run(world, text)
    assert kind_of(ended) is FailureKind.HOST_CALLS
    assert ended.usage.wasi_calls == 1_025


def test_calls_of_wasi_are_counted_and_capped(world: World) -> None:
    text = component(
        "(loop $again (drop (call $now)) (br $again)) unreachable",
        imports=POLL,
        lowers=lower("now", "clock", "now"),
        core_imports='(import "h" "now" (func $now (result i64)))',
    )
    ended = run(world, text, wasi_calls=5_000)
    assert kind_of(ended) is FailureKind.HOST_CALLS
    assert ended.failure is not None
    assert "5000" in ended.failure.message


def writing(times: int, pointer: int, length: int) -> str:
    return component(
        f"(local.set $n (i32.const {times}))"
        f"(loop $again (call $w (call $out) (i32.const {pointer}) (i32.const {length}) (i32.const 64))"
        f"(local.set $n (i32.sub (local.get $n) (i32.const 1))) (br_if $again (local.get $n))) {ANSWER}",
        imports=STREAMS,
        lowers=lower("out", "stdout", "get-stdout") + lower("w", "streams", "[method]output-stream.write"),
        core_imports='(import "h" "out" (func $out (result i32)))(import "h" "w" (func $w (param i32 i32 i32 i32)))',
    )


def test_output_is_cut_at_log_bytes_and_marked(world: World) -> None:
    ended = run(world, writing(100, 65_536, 1_000), log_bytes=5_000)
    assert ended.output == b"hello"
    assert ended.logs_cut
    assert ended.usage.log_bytes <= 5_000


def test_a_line_without_an_end_is_a_line_when_the_invocation_ends(world: World) -> None:
    text = writing(1, 300, 8).replace("(func $answer", '(data (i32.const 300) "one\\0atwo") (func $answer', 1)
    ended = run(world, text)
    assert ended.said == [("info", "one"), ("info", "two\\u0000")]


def test_a_list_longer_than_a_write_may_be_is_a_trap(world: World) -> None:
    ended = run(world, writing(1, 0, 16_385))
    assert kind_of(ended) is FailureKind.TRAP
    assert ended.failure is not None
    assert "expected at most 16384 bytes in a list, got 16385" in ended.failure.message


def log_call(level: int, length: int) -> str:
    return component(
        f"(call $log (i32.const {level}) (local.get 0) (i32.const {length})) {ANSWER}",
        imports=LOG,
        lowers=lower("log", "log", "log"),
        core_imports='(import "h" "log" (func $log (param i32 i32 i32)))',
    )


def test_log_lines_have_their_level(world: World) -> None:
    levels = [run(world, log_call(level, 5)).said for level in range(4)]
    assert levels == [[(level, "hello")] for level in ("debug", "info", "warning", "error")]


def test_a_level_that_the_interface_has_not_is_a_trap(world: World) -> None:
    text = log_call(0, 5).replace('"debug"', '"fatal"')
    assert kind_of(run(world, text)) is FailureKind.TRAP


def random(length: int, declared: str = '(param "len" u64) (result (list u8))') -> str:
    return component(
        f"(call $r (i64.const {length}) (i32.const 64))"
        "(call $answer (i32.load (i32.const 64)) (i32.load (i32.const 68)))",
        imports=f'(import "wasi:random/random@0.2.3" (instance $random (export "get-random-bytes" (func {declared}))))',
        lowers=lower("r", "random", "get-random-bytes"),
        core_imports='(import "h" "r" (func $r (param i64 i32)))',
    )


def test_randomness_is_the_hosts_choice(world: World) -> None:
    assert run(world, random(100)).output == bytes(range(100))
    assert run(world, random(0)).output == b""


@pytest.mark.parametrize("length", [RANDOM_BYTES_PER_CALL_MAX + 1, 1 << 40, (1 << 63) - 1])
def test_too_much_randomness_at_once_is_stopped(world: World, length: int) -> None:
    assert kind_of(run(world, random(length))) is FailureKind.HOST_CALLS


def test_another_result_type_is_a_trap_of_the_guest(world: World) -> None:
    ended = run(world, random(8, '(param "len" u64) (result string)'))
    assert kind_of(ended) is FailureKind.TRAP


def call_out(interface: str, item: str, function: str, core: str, call: str, *, before: str = "") -> str:
    return component(
        f"{call} {ANSWER}",
        imports=f'{before}(import "{interface}" (instance $i {item}))',
        lowers=lower("f", "i", function),
        core_imports=f'(import "h" "f" (func $f {core}))',
    )


MOMENT = (
    '(type $m (record (field "seconds" u64) (field "nanoseconds" u32))) (export "datetime" (type $d (eq $m)))'
    '(export "{}" (func (result $d)))'
)
CREATE_SOCKET = (
    '(type $e (enum "unknown" "access-denied")) (export "error-code" (type $error (eq $e)))'
    '(type $a (enum "ipv4" "ipv6")) (export "ip-address-family" (type $family (eq $a)))'
    '(export "create-tcp-socket" (func (param "f" $family) (result (result u32 (error $error)))))'
)
DENIED = "(call $f (i32.const 0) (i32.const 64)) (if (i32.eqz (i32.load8_u (i32.const 68))) (then unreachable))"
CLOCK, WALL = "wasi:clocks/monotonic-clock@0.2.0", "wasi:clocks/wall-clock@0.2.0"
ENVIRONMENT, SEED = "wasi:cli/environment@0.2.0", "wasi:random/insecure-seed@0.2.0"
STRINGS = "(result (list (tuple string string)))"
RETURNED = "(call $f (i32.const 64)) (if {} (then unreachable))"
LIST_IS_NOT_EMPTY = RETURNED.format("(i32.load (i32.const 68))")


@pytest.mark.parametrize(
    ("interface", "function", "item", "core", "call"),
    [
        (CLOCK, "resolution", '(export "resolution" (func (result u64)))', "(result i64)",
         "(if (i64.ne (call $f) (i64.const 1000)) (then unreachable))"),
        (CLOCK, "now", '(export "now" (func (result u64)))', "(result i64)",
         "(if (i64.ne (i64.rem_u (call $f) (i64.const 1000)) (i64.const 0)) (then unreachable))"),
        (WALL, "now", MOMENT.format("now"), "(param i32)",
         RETURNED.format("(i64.ne (i64.load (i32.const 64)) (i64.const 1700000000))")),
        (WALL, "now", MOMENT.format("now"), "(param i32)",
         RETURNED.format("(i32.ne (i32.load (i32.const 72)) (i32.const 123456000))")),
        (WALL, "resolution", MOMENT.format("resolution"), "(param i32)",
         RETURNED.format("(i32.ne (i32.load (i32.const 72)) (i32.const 1000))")),
        ("wasi:random/random@0.2.0", "get-random-u64", '(export "get-random-u64" (func (result u64)))', "(result i64)",
         "(if (i64.ne (call $f) (i64.const 0x01020304050607)) (then unreachable))"),
        (SEED, "insecure-seed", '(export "insecure-seed" (func (result (tuple u64 u64))))', "(param i32)",
         RETURNED.format("(i64.ne (i64.load (i32.const 72)) (i64.const 0x01020304050607))")),
        (ENVIRONMENT, "get-environment", f'(export "get-environment" (func {STRINGS}))', "(param i32)",
         LIST_IS_NOT_EMPTY),
        (ENVIRONMENT, "get-arguments", '(export "get-arguments" (func (result (list string))))', "(param i32)",
         LIST_IS_NOT_EMPTY),
        (ENVIRONMENT, "initial-cwd", '(export "initial-cwd" (func (result (option string))))', "(param i32)",
         RETURNED.format("(i32.load8_u (i32.const 64))")),
        ("wasi:filesystem/preopens@0.2.0", "get-directories",
         '(export "get-directories" (func (result (list (tuple u32 string)))))', "(param i32)", LIST_IS_NOT_EMPTY),
        ("wasi:sockets/tcp-create-socket@0.2.0", "create-tcp-socket", CREATE_SOCKET, "(param i32 i32)",
         DENIED),
    ],
)  # fmt: skip
def test_the_virtual_machine_is_empty_and_its_clocks_are_coarse(
    world: World, interface: str, function: str, item: str, core: str, call: str
) -> None:
    ended = run(world, call_out(interface, item, function, core, call))
    assert (ended.output, ended.failure) == (b"hello", None)


EXIT = '(export "exit" (func (param "status" (result))))'


@pytest.mark.parametrize(
    ("item", "function", "core", "call", "says"),
    [
        (EXIT, "exit", "(param i32)", "(call $f (i32.const 0))", "early"),
        (EXIT, "exit", "(param i32)", "(call $f (i32.const 1))", "failure"),
        ('(export "exit-with-code" (func (param "status-code" u8)))', "exit-with-code", "(param i32)",
         "(call $f (i32.const 7))", "status 7"),
    ],
)  # fmt: skip
def test_exit_is_a_guest_error(world: World, item: str, function: str, core: str, call: str, says: str) -> None:
    ended = run(world, call_out("wasi:cli/exit@0.2.4", item, function, core, call))
    assert kind_of(ended) is FailureKind.GUEST_ERROR
    assert ended.failure is not None
    assert says in ended.failure.message


def test_a_function_that_this_sandbox_has_not_is_a_matter_of_policy(world: World) -> None:
    text = call_out("wasi:filesystem/types@0.2.0", '(export "odd" (func))', "odd", "", "(call $f)")
    ended = run(world, text)
    assert kind_of(ended) is FailureKind.POLICY


def test_a_component_needs_a_grant_for_each_grantable_import(world: World) -> None:
    text = component(imports='(import "agentfactory:runtime/agents@0.1.0" (instance))')
    program = world.program(compiled(text))
    assert kind_of(world.run(program)) is FailureKind.POLICY
    granted = frozenset({"agentfactory:runtime/agents@0.1.0"})
    assert world.run(program, granted=granted).output == b"hello"


@pytest.mark.parametrize(("text", "config"), [(b"\xff", b"{}"), (b"", b"\xc0\x80")])
def test_what_is_not_utf_8_never_reaches_the_engine(world: World, text: bytes, config: bytes) -> None:
    ended = world.run(world.program(compiled(component())), text, config=config)
    assert kind_of(ended) is FailureKind.INPUT


def test_a_dry_run_instantiates_and_does_not_process(world: World) -> None:
    ended = world.run(world.program(compiled(component("unreachable"))), process=False)
    assert (ended.output, ended.failure) == (b"", None)


def test_output_beyond_its_limit_is_not_copied(world: World) -> None:
    assert run(world, component(), b"x" * 10, output_bytes=10).output == b"x" * 10
    assert kind_of(run(world, component(), b"x" * 11, output_bytes=10)) is FailureKind.OUTPUT


def test_a_component_type_with_another_process_is_refused(world: World) -> None:
    raw = wit.Component(world.engine.raw, "(component)")
    with pytest.raises(EngineError, match="expected the export process"):
        ComponentProgram(world.engine, raw, world._turn, abi="component")
