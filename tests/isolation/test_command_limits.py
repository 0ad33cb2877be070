"""Each limit ends in its own failure, in a real worker, and the next invocation in the same worker succeeds."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from sandbox.limits import SandboxLimits
from sandbox.outcome import FailureKind
from sandbox.supervisor import Worker, WorkerSettings
from tests.isolation import guests
from tests.isolation.guests import LIMITS, run


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker() -> AsyncIterator[Worker]:
    started = await Worker.start(WorkerSettings(slots=50))
    yield started
    await started.stop()


pytestmark = pytest.mark.asyncio(loop_scope="module")
ENDLESS = replace(LIMITS, fuel=10**15, wasi_calls=10**9, wall_ms=100)

ATTACKS: list[tuple[str, str, SandboxLimits, FailureKind]] = [
    ("endless loop, fuel", guests.SPINNER, LIMITS, FailureKind.FUEL),
    ("endless loop, time", guests.SPINNER, ENDLESS, FailureKind.DEADLINE),
    ("loop in a start function", guests.START_SPINNER, LIMITS, FailureKind.FUEL),
    ("loop in a start function, time", guests.START_SPINNER, ENDLESS, FailureKind.DEADLINE),
    ("infinite recursion", guests.RECURSION, LIMITS, FailureKind.TRAP),
    ("waiting for ever", guests.sleeper(10**18), ENDLESS, FailureKind.DEADLINE),
    ("waiting past the end of time", guests.sleeper((1 << 63) - 1), ENDLESS, FailureKind.DEADLINE),
    ("a million cheap host calls", guests.WASI_HAMMERER, LIMITS, FailureKind.HOST_CALLS),
    ("cheap host calls, time", guests.WASI_HAMMERER, ENDLESS, FailureKind.DEADLINE),
    ("yielding for ever", guests.YIELDER, LIMITS, FailureKind.HOST_CALLS),
    ("yielding, time", guests.YIELDER, ENDLESS, FailureKind.DEADLINE),
    ("zero-length write storm", guests.EMPTY_WRITES, LIMITS, FailureKind.HOST_CALLS),
    ("broker calls without end", guests.HOST_HAMMERER, LIMITS, FailureKind.HOST_CALLS),
    ("growing to the limit", guests.HOG, LIMITS, FailureKind.MEMORY),
    ("growing and touching all", guests.TOUCHING_HOG, LIMITS, FailureKind.MEMORY),
    ("a huge declared minimum", guests.GREEDY, LIMITS, FailureKind.MEMORY),
    ("a flood of output", guests.FLOODER, LIMITS, FailureKind.OUTPUT),
    ("output that is not UTF-8", guests.say(1, b"ok \xff"), LIMITS, FailureKind.OUTPUT),
    ("a lone surrogate", guests.say(1, b"\xed\xa0\x80"), LIMITS, FailureKind.OUTPUT),
    ("unreachable", guests.UNREACHABLE, LIMITS, FailureKind.TRAP),
    ("an exit code", guests.EXIT_7, LIMITS, FailureKind.GUEST_ERROR),
]


@pytest.mark.parametrize(("text", "limits", "kind"), [a[1:] for a in ATTACKS], ids=[a[0] for a in ATTACKS])
async def test_an_attack_ends_in_its_kind_and_its_neighbour_succeeds(
    worker: Worker, text: str, limits: SandboxLimits, kind: FailureKind
) -> None:
    outcome = await run(worker, text, limits=limits)
    assert outcome.failure is not None
    assert (outcome.failure.kind, outcome.output) == (kind, None)
    assert "/" not in outcome.failure.message  # no path of the host
    assert (await run(worker, guests.ECHO, data=b"next")).output == b"next"
    assert (worker.in_flight, worker.reason) == (0, None)


POINTERS = {
    "vectors outside": "(drop (call $fd_write (i32.const 1) (i32.const 131068) (i32.const 1) (i32.const 0)))",
    "vector to the outside": "(i32.store (i32.const 0) (i32.const 131071)) (i32.store (i32.const 4) (i32.const 2))"
    "(drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))",
    "result outside": "(drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 131069)))",
    "result at the end of the address space": "(drop (call $random_get (i32.const -1) (i32.const 1)))",
    "input to the outside": "(i32.store (i32.const 0) (i32.const -8)) (i32.store (i32.const 4) (i32.const 16))"
    "(drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))",
    "log from the outside": "(i32.store (i32.const 0) (i32.const 65536)) (i32.store (i32.const 4) (i32.const 65537))"
    "(drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))",
    "arguments to the outside": "(drop (call $args_get (i32.const 131072) (i32.const 0)))",
    "environment to the outside": "(drop (call $environ_get (i32.const 0) (i32.const 131071)))",
    "subscriptions outside": "(drop (call $poll_oneoff (i32.const 131030) (i32.const 0) (i32.const 1) (i32.const 0)))",
    "events outside": "(drop (call $poll_oneoff (i32.const 0) (i32.const 131070) (i32.const 1) (i32.const 0)))",
    "request outside": "(drop (call $call (i32.const 256) (i32.const 6) (i32.const 131000) (i32.const 100)"
    " (i32.const 0) (i32.const 10)))",
    "operation outside": "(drop (call $call (i32.const 131070) (i32.const 6) (i32.const 0) (i32.const 0) (i32.const 0)"
    " (i32.const 10)))",
    "answer outside": "(drop (call $call (i32.const 256) (i32.const 6) (i32.const 0) (i32.const 2) (i32.const 131000)"
    " (i32.const 1000)))",
}


@pytest.mark.parametrize("body", POINTERS.values(), ids=POINTERS.keys())
async def test_a_pointer_outside_its_memory_is_a_trap(worker: Worker, body: str) -> None:
    text = guests.command(body, rest='(data (i32.const 256) "kv.get")')
    outcome = await run(worker, text, data=b"x" * 16)
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.TRAP
    assert "inside a memory of 131072 bytes" in outcome.failure.message


@pytest.mark.parametrize("text", [guests.RANDOM_GLUTTON, guests.HUGE_VECTORS], ids=["randomness", "vectors"])
async def test_a_request_for_too_much_at_once_is_refused_to_the_guest(worker: Worker, text: str) -> None:
    outcome = await run(worker, text)
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.GUEST_ERROR


async def test_vectors_whose_sum_overflows_are_refused(worker: Worker) -> None:
    outcome = await run(worker, guests.SUM_OF_VECTORS)
    assert outcome.failure is not None
    assert outcome.failure.message.endswith("got 6")


async def test_output_of_the_limit_passes_and_one_byte_more_fails(worker: Worker) -> None:
    exact = await run(worker, guests.ECHO, data=b"x" * 100, limits=replace(LIMITS, output_bytes=100))
    assert exact.output == b"x" * 100
    more = await run(worker, guests.ECHO, data=b"x" * 101, limits=replace(LIMITS, output_bytes=100))
    assert more.failure is not None
    assert more.failure.kind is FailureKind.OUTPUT


async def test_input_of_the_limit_passes_and_one_byte_more_never_reaches_the_worker(worker: Worker) -> None:
    limits = replace(LIMITS, input_bytes=100)
    assert (await run(worker, guests.ECHO, data=b"x" * 100, limits=limits)).output == b"x" * 100
    more = await run(worker, guests.ECHO, data=b"x" * 101, limits=limits)
    assert more.failure is not None
    assert more.failure.kind is FailureKind.INPUT


async def test_the_last_host_call_passes_and_the_next_one_fails(worker: Worker) -> None:
    text = guests.ask(b"kv.get", b"{}")
    assert (await run(worker, text, limits=replace(LIMITS, host_calls=1))).failure is None
    refused = await run(worker, text, limits=replace(LIMITS, host_calls=0))
    assert refused.failure is not None
    assert refused.failure.kind is FailureKind.HOST_CALLS


async def test_a_flooded_log_is_cut_and_marked_and_the_invocation_succeeds(worker: Worker) -> None:
    outcome = await run(worker, guests.LOG_FLOODER)
    assert outcome.failure is None
    assert outcome.logs_cut
    assert 0 < outcome.usage.log_bytes <= LIMITS.log_bytes


async def test_log_lines_can_neither_steer_a_terminal_nor_forge_a_line(worker: Worker) -> None:
    outcome = await run(worker, guests.say(2, "a\x1b[2J\rb\u202e\nc\td".encode()))
    assert [line.message for line in outcome.logs] == ["a\\u001b[2J\\u000db\\u202e", "c\td"]


async def test_what_a_guest_said_before_it_trapped_is_in_the_log(worker: Worker) -> None:
    outcome = await run(worker, guests.say(2, b"no newline", "unreachable"))
    assert outcome.failure is not None
    assert [line.message for line in outcome.logs] == ["no newline"]


async def test_fuel_is_the_same_on_every_run(worker: Worker) -> None:
    used = {(await run(worker, guests.ECHO, data=b"same")).usage.fuel for _ in range(5)}
    assert len(used) == 1


async def test_memory_of_one_invocation_is_never_seen_by_another(worker: Worker) -> None:
    for _ in range(3):
        assert (await run(worker, guests.PIGGYBACK)).failure is None
        assert (await run(worker, guests.PEEKER)).failure is None
