"""One worker, many invocations: a hostile one changes nothing for the others, and no two see each other."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from sandbox.outcome import FailureKind
from sandbox.supervisor import Worker, WorkerSettings
from tests.isolation import guests
from tests.isolation.guests import LIMITS, Echoing, run

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATIENT = replace(LIMITS, fuel=10**15, wasi_calls=10**9, host_calls=10**9, wall_ms=60_000)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker() -> AsyncIterator[Worker]:
    started = await Worker.start(WorkerSettings(slots=300))
    yield started
    await started.stop()


@pytest.mark.parametrize(
    "text",
    [guests.SPINNER, guests.WASI_HAMMERER, guests.YIELDER, guests.HOST_HAMMERER, guests.EMPTY_WRITES],
    ids=["spinner", "clock", "yielder", "host calls", "empty writes"],
)
async def test_a_hundred_ordinary_invocations_finish_beside_a_hostile_one(worker: Worker, text: str) -> None:
    hostile = asyncio.ensure_future(run(worker, text, limits=PATIENT))
    await guests.until_in_flight(worker, 1)
    ordinary = await asyncio.gather(*(run(worker, guests.ECHO, data=b"%d" % n) for n in range(100)))
    assert [outcome.output for outcome in ordinary] == [b"%d" % n for n in range(100)]
    assert not hostile.done()
    hostile.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hostile


async def test_cancelling_the_caller_stops_the_guest(worker: Worker) -> None:
    tasks = [
        asyncio.ensure_future(run(worker, text, limits=PATIENT))
        for text in (guests.SPINNER, guests.sleeper(10**12), guests.YIELDER)
    ]
    await guests.until_in_flight(worker, 3)
    await run(worker, guests.ECHO)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await guests.until_empty(worker)
    assert worker.reason is None


async def test_two_hundred_sleepers_are_asleep_at_once(worker: Worker) -> None:
    outcomes = await asyncio.gather(*(run(worker, guests.sleeper(100_000_000)) for _ in range(200)))
    assert {outcome.output for outcome in outcomes} == {b"7"}
    total_us = sum(outcome.usage.wall_us for outcome in outcomes)
    assert total_us > 200 * 100_000  # each slept its full time, yet one thread held them all
    assert sum(outcome.usage.guest_us for outcome in outcomes) < total_us


async def test_more_invocations_than_slots_wait_for_a_slot(worker: Worker) -> None:
    outcomes = await asyncio.gather(*(run(worker, guests.sleeper(10_000_000)) for _ in range(700)))
    assert {outcome.output for outcome in outcomes} == {b"7"}


async def test_a_slot_that_never_comes_ends_at_the_deadline() -> None:
    worker = await Worker.start(WorkerSettings(slots=1))
    try:
        await worker.load(guests.ECHO, guests.compiled(guests.ECHO))
        hog = asyncio.ensure_future(run(worker, guests.sleeper(10**18), limits=replace(LIMITS, wall_ms=3_000)))
        await guests.until_in_flight(worker, 1)
        waiting = await run(worker, guests.ECHO, limits=replace(LIMITS, wall_ms=100))
        assert waiting.failure is not None
        assert (waiting.failure.kind, waiting.usage.fuel) == (FailureKind.DEADLINE, 0)
        hogged = await hog
        assert hogged.failure is not None
        assert (await run(worker, guests.ECHO, data=b"free")).output == b"free"
    finally:
        await worker.stop()


async def test_answers_reach_the_invocation_that_asked(worker: Worker) -> None:
    async def one(number: int) -> None:
        host = Echoing()
        outcome = await run(worker, guests.ask(b"kv.get", b"%03d" % (number % 10)), host=host)
        assert outcome.output == b'{"ok":%03d}' % (number % 10)
        assert host.calls == [("kv", "get", b"%03d" % (number % 10))]

    await asyncio.gather(*(one(number) for number in range(100)))


class Silent:
    """A broker that never answers."""

    def __init__(self) -> None:
        self.is_cancelled = False
        self.is_asked = asyncio.Event()

    async def call(self, interface: str, function: str, argument: bytes) -> bytes:
        del interface, function, argument
        self.is_asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise
        return b""


class Broken:
    """A broker with a fault of its own."""

    async def call(self, interface: str, function: str, argument: bytes) -> bytes:
        del interface, function, argument
        raise TimeoutError("its own")


async def test_a_host_call_that_never_answers_ends_at_the_deadline_and_is_cancelled(worker: Worker) -> None:
    host = Silent()
    outcome = await run(worker, guests.ask(b"kv.get", b"{}"), host=host, limits=replace(LIMITS, wall_ms=1_000))
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.DEADLINE
    assert host.is_cancelled


async def test_a_fault_of_the_broker_stops_the_guest_and_reaches_the_caller(worker: Worker) -> None:
    with pytest.raises(TimeoutError, match="its own"):
        await run(worker, guests.ask(b"kv.get", b"{}"), host=Broken())
    assert (await run(worker, guests.ECHO, data=b"next")).output == b"next"


async def test_cancelling_during_a_host_call_cancels_the_host_call(worker: Worker) -> None:
    host = Silent()
    task = asyncio.ensure_future(run(worker, guests.ask(b"kv.get", b"{}"), host=host, limits=PATIENT))
    await host.is_asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert host.is_cancelled


async def test_an_answer_longer_than_the_buffer_is_fetched_again_without_asking_again(worker: Worker) -> None:
    again = (
        "(drop (call $call (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 65536) (i32.const 100)))"
        "(i32.store (i32.const 0) (i32.const 65536)) (i32.store (i32.const 4) (local.get $n))"
        "(drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))"
    )
    host = Echoing()
    outcome = await run(worker, guests.ask(b"kv.get", b'"long"', capacity=5, then=again), host=host)
    assert outcome.output == b'{"ok"{"ok"'
    assert len(host.calls) == 1


async def test_an_answer_too_long_to_be_carried_becomes_an_error(worker: Worker) -> None:
    host = Echoing(lambda _: b'"' + b"x" * (5 << 20) + b'"')
    outcome = await run(worker, guests.ask(b"kv.get", b"{}"), host=host)
    assert outcome.output is not None
    assert b'"failed"' in outcome.output


@pytest.mark.parametrize(
    ("op", "granted", "kind"),
    [
        (b"kv.get", frozenset(), b"denied"),
        (b"agents.invoke", guests.KV, b"denied"),
        (b"kv", guests.KV, b"invalid"),
        (b"kv.get.more", guests.KV, b"invalid"),
        (b"kv.\xff", guests.KV, b"invalid"),
        (b"k" * 65, guests.KV, b"invalid"),
    ],
)
async def test_a_call_that_is_not_granted_or_not_a_call_is_an_ordinary_answer(
    worker: Worker, op: bytes, granted: frozenset[str], kind: bytes
) -> None:
    host = Echoing()
    outcome = await run(worker, guests.ask(op, b"{}"), host=host, granted=granted)
    assert outcome.output is not None
    assert b'"kind":"%s"' % kind in outcome.output
    assert host.calls == []


async def test_the_configuration_is_in_the_environment(worker: Worker) -> None:
    outcome = await run(worker, guests.CONFIGURED, config=b'{"sentences":5}')
    assert outcome.output == b'AGENTFACTORY_CONFIG={"sentences":5}'


async def test_a_dry_run_instantiates_and_processes_nothing(worker: Worker) -> None:
    outcome = await run(worker, guests.EXIT_7, process=False)
    assert (outcome.output, outcome.failure) == (b"", None)
    refused = await run(worker, guests.START_SPINNER, process=False)
    assert refused.failure is not None
