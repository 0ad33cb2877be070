"""Virtual preview 1: what a guest can ask, and what it is answered."""

import struct
from dataclasses import replace

import pytest

from sandbox.core_module import CoreModule
from sandbox.engine import Engine, EngineError, wat2wasm
from sandbox.preview1 import (
    BADF,
    FUNCTIONS,
    INVAL,
    MODULE,
    MONOTONIC_ORIGIN_NS,
    NOTDIR,
    NOTSOCK,
    RANDOM_BYTES_MAX,
    SPECIAL,
    SPIPE,
    SUBSCRIPTIONS_MAX,
)
from sandbox.preview1_files import IOVECS_MAX
from tests.isolation import guests
from tests.isolation.guests import LIMITS, command
from tests.unit.sandbox.fiber_world import WALL_NS, World

_TYPES = {"i": "i32", "I": "i64"}
_WITHOUT_MEMORY = (
    '(module (import "wasi_snapshot_preview1" "sched_yield" (func $y (result i32)))'
    '(func (export "_start") (drop (call $y))))'
)
DUMP = 4_096  # where the guests below put what they write to stdout


@pytest.fixture
def world() -> World:
    return World()


def call(name: str, *arguments: int, dump: int = 0, before: str = "") -> str:
    """A guest that calls one function and writes its errno (4 bytes) and ``dump`` bytes from DUMP to stdout, as hex."""
    parameters = FUNCTIONS[name][0] if name in FUNCTIONS else SPECIAL[name]
    kinds = " ".join(_TYPES[letter] for letter in parameters)
    values = " ".join(f"({_TYPES[p]}.const {value})" for p, value in zip(parameters, arguments, strict=True))
    write = "$f" if name == "fd_write" else "$w"
    return f"""(module
      (import "{MODULE}" "{name}" (func $f (param {kinds}) (result i32)))
      {"" if name == "fd_write" else f'(import "{MODULE}" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))'}
      (memory (export "memory") 2)
      (func $nibble (param $at i32) (param $n i32)
        (i32.store8 (local.get $at) (i32.add (local.get $n)
          (select (i32.const 87) (i32.const 48) (i32.gt_u (local.get $n) (i32.const 9))))))
      (func (export "_start") (local $i i32) (local $b i32)
        {before}
        (i32.store (i32.const {DUMP - 4}) (call $f {values}))
        (loop $more
          (local.set $b (i32.load8_u (i32.add (i32.const {DUMP - 4}) (local.get $i))))
          (call $nibble (i32.add (i32.const 8192) (i32.mul (local.get $i) (i32.const 2)))
            (i32.shr_u (local.get $b) (i32.const 4)))
          (call $nibble (i32.add (i32.const 8193) (i32.mul (local.get $i) (i32.const 2)))
            (i32.and (local.get $b) (i32.const 15)))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br_if $more (i32.lt_u (local.get $i) (i32.const {4 + dump}))))
        (i32.store (i32.const 0) (i32.const 8192)) (i32.store (i32.const 4) (i32.const {2 * (4 + dump)}))
        (drop (call {write} (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"""


def answer(world: World, name: str, *arguments: int, dump: int = 0, before: str = "") -> tuple[int, bytes]:
    """Return the errno and the dumped bytes."""
    end = world.run(call(name, *arguments, dump=dump, before=before), b"input")
    assert end.output is not None, end.message
    raw = bytes.fromhex(end.output.decode())
    return struct.unpack_from("<I", raw)[0], raw[4:]


def test_every_function_can_be_imported_with_its_type_and_with_no_other(world: World) -> None:
    for name, parameters in [(name, entry[0]) for name, entry in FUNCTIONS.items()] + list(SPECIAL.items()):
        kinds = " ".join(_TYPES[letter] for letter in parameters)
        result = "" if name == "proc_exit" else "(result i32)"
        text = '(module (import "{}" "{}" (func (param {}) {})) (memory (export "memory") 1) (func (export "_start")))'
        assert world.run(text.format(MODULE, name, kinds, result)).kind is None
        with pytest.raises(EngineError, match=name):
            world.program(text.format(MODULE, name, kinds + " f32", result))


@pytest.mark.parametrize(
    "item",
    [
        '(import "env" "open" (func))',
        '(import "wasi_snapshot_preview1" "thread-spawn" (func (param i32) (result i32)))',
        '(import "wasi_unstable" "fd_write" (func (param i32 i32 i32 i32) (result i32)))',
        '(import "agentfactory" "call2" (func (param i32 i32 i32 i32 i32 i32) (result i32)))',
        '(import "agentfactory" "call" (func (param i32) (result i32)))',
        '(import "env" "memory" (memory 1))',
        '(import "env" "table" (table 1 funcref))',
    ],
)
def test_an_import_that_does_not_exist_is_refused_at_loading(world: World, item: str) -> None:
    with pytest.raises(EngineError, match="expected"):
        world.program(f'(module {item} (func (export "_start")))')


@pytest.mark.parametrize(
    ("name", "arguments", "errno"),
    [
        ("path_open", (3, 0, 0, 0, 0, 0, 0, 0, 0), BADF),
        ("path_open", (0, 0, 0, 0, 0, 0, 0, 0, 0), NOTDIR),
        ("path_unlink_file", (3, 0, 0), BADF),
        ("fd_prestat_get", (3, 0), BADF),
        ("fd_prestat_get", (0, 0), BADF),
        ("fd_readdir", (4, 0, 0, 0, 0), BADF),
        ("fd_seek", (1, 0, 0, 0), SPIPE),
        ("fd_seek", (9, 0, 0, 0), BADF),
        ("fd_tell", (0, 0), SPIPE),
        ("fd_close", (1,), 0),
        ("fd_close", (3,), BADF),
        ("fd_close", (-1,), BADF),
        ("fd_renumber", (7, 1), BADF),
        ("fd_fdstat_set_flags", (1, 4), 0),
        ("sock_send", (5, 0, 0, 0, 0), BADF),
        ("sock_send", (1, 0, 0, 0, 0), NOTSOCK),
        ("sock_accept", (3, 0, 0), BADF),
        ("fd_read", (1, 0, 0, 8), BADF),
        ("fd_read", (3, 0, 0, 8), BADF),
        ("fd_read", (0, 0, IOVECS_MAX + 1, 8), INVAL),
        ("fd_write", (0, 0, 0, 8), BADF),
        ("fd_write", (3, 0, 0, 8), BADF),
        ("fd_write", (1, 0, IOVECS_MAX + 1, 8), INVAL),
        ("fd_fdstat_get", (3, 0), BADF),
        ("fd_filestat_get", (3, 0), BADF),
        ("clock_res_get", (2, 0), INVAL),
        ("clock_time_get", (3, 0, 0), INVAL),
        ("random_get", (0, RANDOM_BYTES_MAX + 1), INVAL),
        ("poll_oneoff", (0, 0, 0, 0), INVAL),
        ("poll_oneoff", (0, 0, SUBSCRIPTIONS_MAX + 1, 0), INVAL),
    ],
)
def test_what_does_not_exist_is_refused_with_its_errno(
    world: World, name: str, arguments: tuple[int, ...], errno: int
) -> None:
    assert answer(world, name, *arguments) == (errno, b"")


def test_clocks_are_the_hosts_values_and_say_nothing_of_its_uptime(world: World) -> None:
    assert answer(world, "clock_time_get", 0, 0, DUMP, dump=8) == (0, struct.pack("<Q", WALL_NS // 1000 * 1000))
    assert answer(world, "clock_time_get", 1, 0, DUMP, dump=8) == (0, struct.pack("<Q", MONOTONIC_ORIGIN_NS))
    assert answer(world, "clock_res_get", 1, DUMP, dump=8) == (0, struct.pack("<Q", 1_000))


def test_randomness_is_the_hosts_and_fills_what_was_asked(world: World) -> None:
    assert answer(world, "random_get", DUMP, 5, dump=6) == (0, b"\x00\x01\x02\x03\x04\x00")


def test_arguments_are_one_neutral_name(world: World) -> None:
    assert answer(world, "args_sizes_get", DUMP, DUMP + 4, dump=8) == (0, struct.pack("<II", 1, 6))
    assert answer(world, "args_get", DUMP, DUMP + 4, dump=10) == (0, struct.pack("<I", DUMP + 4) + b"agent\0")


def test_the_environment_is_the_configuration_and_nothing_else(world: World) -> None:
    length = len(b"AGENTFACTORY_CONFIG={}\0")
    assert answer(world, "environ_sizes_get", DUMP, DUMP + 4, dump=8) == (0, struct.pack("<II", 1, length))
    raw = answer(world, "environ_get", DUMP, DUMP + 4, dump=4 + length)[1]
    assert raw == struct.pack("<I", DUMP + 4) + b"AGENTFACTORY_CONFIG={}\0"


@pytest.mark.parametrize(("fd", "rights"), [(0, 1 << 1), (1, 1 << 6), (2, 1 << 6)])
def test_streams_are_no_terminals(world: World, fd: int, rights: int) -> None:
    errno, raw = answer(world, "fd_fdstat_get", fd, DUMP, dump=24)
    kind, flags, base, inheriting = struct.unpack("<BxHxxxxQQ", raw)
    assert (errno, kind, flags, base & rights, inheriting) == (0, 0, 0, rights, 0)
    assert answer(world, "fd_filestat_get", fd, DUMP, dump=64) == (0, bytes(64))


def test_input_is_scattered_over_vectors_and_ends(world: World) -> None:
    vectors = "".join(
        f"(i32.store (i32.const {64 + 8 * i}) (i32.const {DUMP + at}))"
        f"(i32.store (i32.const {68 + 8 * i}) (i32.const {n}))"
        for i, (at, n) in enumerate([(0, 2), (2, 0), (2, 100)])
    )
    assert answer(world, "fd_read", 0, 64, 3, DUMP + 200, dump=204, before=vectors) == (
        0,
        b"input" + bytes(195) + struct.pack("<I", 5),
    )


def _clock(at: int, userdata: int, clock: int, timeout: int, flags: int = 0) -> str:
    return (
        f"(i64.store (i32.const {at}) (i64.const {userdata})) (i32.store8 (i32.const {at + 8}) (i32.const 0))"
        f"(i32.store (i32.const {at + 16}) (i32.const {clock})) (i64.store (i32.const {at + 24}) (i64.const {timeout}))"
        f"(i32.store16 (i32.const {at + 40}) (i32.const {flags}))"
    )


def _descriptor(at: int, userdata: int, tag: int, fd: int) -> str:
    return (
        f"(i64.store (i32.const {at}) (i64.const {userdata})) (i32.store8 (i32.const {at + 8}) (i32.const {tag}))"
        f"(i32.store (i32.const {at + 16}) (i32.const {fd}))"
    )


EVENT = struct.Struct("<QHB5xQH6x")


@pytest.mark.parametrize(
    ("subscriptions", "events"),
    [
        ([_clock(64, 7, 1, 0)], [(7, 0, 0, 0, 0)]),
        ([_clock(64, 7, 1, 1, 1)], [(7, 0, 0, 0, 0)]),
        ([_clock(64, 7, 0, WALL_NS - 1_000, 1)], [(7, 0, 0, 0, 0)]),
        ([_clock(64, 7, 2, 5)], [(7, INVAL, 0, 0, 0)]),
        ([_descriptor(64, 8, 1, 0)], [(8, 0, 1, 5, 0)]),
        ([_descriptor(64, 8, 1, 1)], [(8, BADF, 1, 0, 0)]),
        ([_descriptor(64, 8, 2, 1)], [(8, 0, 2, LIMITS.output_bytes, 0)]),
        ([_descriptor(64, 8, 2, 9)], [(8, BADF, 2, 0, 0)]),
        ([_descriptor(64, 8, 77, 0)], [(8, INVAL, 77, 0, 0)]),
        ([_clock(64, 7, 1, 10**18), _descriptor(112, 8, 1, 0)], [(8, 0, 1, 5, 0)]),
        ([_clock(64, 7, 1, 0), _descriptor(112, 8, 1, 0)], [(8, 0, 1, 5, 0), (7, 0, 0, 0, 0)]),
    ],
)
def test_a_poll_with_something_ready_reports_it_at_once(
    world: World, subscriptions: list[str], events: list[tuple[int, ...]]
) -> None:
    errno, raw = answer(
        world, "poll_oneoff", 64, DUMP, len(subscriptions), DUMP + 64, dump=68, before="".join(subscriptions)
    )
    assert errno == 0
    assert struct.unpack_from("<I", raw, 64) == (len(events),)
    assert [EVENT.unpack_from(raw, 32 * i) for i in range(len(events))] == events


def test_a_poll_of_clocks_only_sleeps_until_the_earliest(world: World) -> None:
    before = _clock(64, 1, 1, 5_000) + _clock(112, 2, 0, WALL_NS // 1000 * 1000 + 3_000, 1) + _clock(160, 3, 1, 3_000)
    number = world.start(call("poll_oneoff", 64, DUMP, 3, DUMP + 96, dump=100, before=before))
    world.settle()
    world.advance(2_999)
    assert number not in world.ends
    world.advance(1)
    output = world.ends[number].output
    assert output is not None
    raw = bytes.fromhex(output.decode())[4:]
    assert struct.unpack_from("<I", raw, 96) == (2,)
    assert [EVENT.unpack_from(raw, 32 * i)[0] for i in range(2)] == [2, 3]


def test_vectors_of_output_are_gathered_in_order(world: World) -> None:
    text = command(
        "(i32.store (i32.const 0) (i32.const 256)) (i32.store (i32.const 4) (i32.const 2))"
        "(i32.store (i32.const 8) (i32.const 300)) (i32.store (i32.const 12) (i32.const 0))"
        "(i32.store (i32.const 16) (i32.const 258)) (i32.store (i32.const 20) (i32.const 2))"
        "(drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 3) (i32.const 32)))"
        "(if (i32.ne (i32.load (i32.const 32)) (i32.const 4)) (then unreachable))",
        rest='(data (i32.const 256) "abcd")',
    )
    assert world.run(text).output == b"abcd"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (guests.say(2, b"one\ntwo\n"), ["one", "two"]),
        (guests.say(2, b"one\ntwo"), ["one", "two"]),
        (guests.say(2, b"\n\n"), ["", ""]),
        (guests.say(2, b""), []),
        (guests.say(2, b"\xff\x00"), ["�\\u0000"]),
        (guests.say(2, "é\u2028x".encode()), ["é\\u2028x"]),
    ],
)
def test_stderr_becomes_log_lines(world: World, text: str, lines: list[str]) -> None:
    end = world.run(text)
    assert [line.message for line in end.invocation.logs] == lines
    assert not end.invocation.logs_cut


@pytest.mark.parametrize(("limit", "kept"), [(0, []), (67, ["abc"]), (68, ["abcd"])])
def test_a_log_over_its_limit_is_cut_and_marked(world: World, limit: int, kept: list[str]) -> None:
    end = world.run(guests.say(2, b"abcd"), limits=replace(LIMITS, log_bytes=limit))
    assert [line.message for line in end.invocation.logs] == kept
    assert end.invocation.logs_cut == (kept != ["abcd"])
    assert end.kind is None


def test_a_line_without_end_is_broken_up(world: World) -> None:
    text = command(
        "(memory.fill (i32.const 0) (i32.const 97) (i32.const 60000))"
        "(i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 50000))"
        "(drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 12)))"
    )
    end = world.run(text, limits=replace(LIMITS, log_bytes=1 << 20))
    assert end.invocation.logs_cut
    assert len(end.invocation.logs[0].message) == 16_384


def test_memory_that_grew_is_reachable(world: World) -> None:
    text = command(
        "(drop (call $random_get (i32.const 0) (i32.const 1)))"
        "(drop (memory.grow (i32.const 1)))"
        "(i32.store (i32.const 0) (i32.const 131072)) (i32.store (i32.const 4) (i32.const 2))"
        "(i32.store16 (i32.const 131072) (i32.const 0x6b6f))"
        "(drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))"
    )
    assert world.run(text).output == b"ok"


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ('(module (memory (export "memory") 1))', "TRAP", "exported function _start"),
        ('(module (memory (export "memory") 1) (global (export "_start") i32 (i32.const 1)))', "TRAP", "_start"),
        (
            _WITHOUT_MEMORY,
            "TRAP",
            "exported memory",
        ),
        (guests.EXIT_0, None, ""),
        (guests.EXIT_7, "GUEST_ERROR", "got 7"),
        (command("(call $proc_exit (i32.const -1))"), "GUEST_ERROR", "got 4294967295"),
        (guests.UNREACHABLE, "TRAP", "out of memory shows like this"),
        (command("(drop (i32.div_u (i32.const 1) (i32.const 0)))"), "TRAP", "integer divide by zero"),
        (command("(drop (i32.load (i32.const -4)))"), "TRAP", "out of bounds memory access"),
    ],
)
def test_an_end_has_its_kind(world: World, text: str, kind: str | None, message: str) -> None:
    end = world.run(text)
    assert end.kind == kind
    assert message in end.message


def test_a_start_function_may_exit(world: World) -> None:
    text = (
        '(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32))) (memory (export "memory") 1)'
        '(func $s (call $exit (i32.const 4))) (start $s) (func (export "_start")))'
    )
    assert world.run(text).message == "expected exit code 0, got 4"


@pytest.mark.parametrize(
    "text",
    [
        '(module (memory i64 1) (func (export "_start")))',
        '(module (memory 1 2 shared) (func (export "_start")))',
        '(module (memory 1) (memory 1) (func (export "_start")))',
        "(module (func $f return_call $f))",
        "(module (type (struct)))",
        "(module (tag))",
        "(module (func (param i32) (i32.atomic.store (i32.const 0) (local.get 0))) (memory 1))",
        "(module (func (param v128) (result v128) (i8x16.relaxed_swizzle (local.get 0) (local.get 0))))",
        "(module (memory 1 (pagesize 1)))",
        "(module (func (param i64) (result i64 i64) (i64.mul_wide_s (local.get 0) (local.get 0))))",
        "(module (type $f (func)) (func (param (ref $f)) (call_ref $f (local.get 0))))",
    ],
)
def test_proposals_that_nobody_needs_are_off(text: str) -> None:
    with pytest.raises(EngineError):
        CoreModule.compile(Engine(), wat2wasm(text))
