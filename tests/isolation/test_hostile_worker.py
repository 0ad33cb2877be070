"""Frames from a worker that an attacker has taken over: that worker is killed, and nothing it says is believed."""

import asyncio
import contextlib
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from sandbox.frames import TO_WORKER, FrameReader, Op, Ready, frame, pack_call, pack_done, pack_log, pack_ready
from sandbox.nature import Order, RecordOrder
from sandbox.outcome import Failure, FailureKind, LogLine, Outcome, Usage
from sandbox.request import InvocationRequest
from sandbox.supervisor import Worker, WorkerError, WorkerSettings
from tests.isolation import guests
from tests.isolation.guests import LIMITS, Echoing

FINGERPRINT = "a" * 64


@dataclass
class TakenOver:
    """A worker whose process is ours to play."""

    worker: Worker
    socket: socket.socket
    reader: FrameReader

    async def frames(self) -> list[tuple[int, int, bytes]]:
        data = await asyncio.get_running_loop().sock_recv(self.socket, 1 << 20)
        return list(self.reader.feed(data))

    def say(self, data: bytes) -> None:
        self.socket.sendall(data)


@pytest.fixture
def child() -> "Iterator[subprocess.Popen[bytes]]":
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


@asynccontextmanager
async def taken_over(child: "subprocess.Popen[bytes]", **settings: float) -> AsyncIterator[TakenOver]:
    """A worker with these settings, whose process is played by the test."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with theirs:
        worker = Worker(WorkerSettings(**settings), ours, child)  # type: ignore[arg-type]
        player = TakenOver(worker, theirs, FrameReader(TO_WORKER))
        worker._fingerprint = FINGERPRINT
        player.say(frame(Op.READY, 0, pack_ready(Ready("rlimits-only", FINGERPRINT))))
        yield player
        await worker.stop()


@pytest.fixture
async def hostile(child: "subprocess.Popen[bytes]") -> AsyncIterator[TakenOver]:
    async with taken_over(child) as player:
        yield player


async def start(
    hostile: TakenOver, *, host: Echoing | None = None, order: Order | None = None
) -> tuple["asyncio.Task[Outcome]", int]:
    """Load code, start an invocation; return its task and its number."""
    code = replace(guests.compiled(guests.ECHO), engine_fingerprint=FINGERPRINT)
    loading = asyncio.ensure_future(hostile.worker.load("code", code))
    (op, number, _), *_ = await hostile.frames()
    assert op == Op.LOAD
    hostile.say(frame(Op.LOADED, number))
    await loading
    request = InvocationRequest(code_id="code", abi="command", limits=LIMITS, granted=guests.KV, order=order)
    task = asyncio.ensure_future(hostile.worker.invoke(request, host or Echoing()))
    (op, number, _), *_ = await hostile.frames()
    assert op == Op.START
    return task, number


def done(number: int, output: bytes = b"", lines: tuple[LogLine, ...] = ()) -> bytes:
    return pack_done(number, output, None, Usage(), list(lines), logs_cut=False)


HEADER = struct.Struct("<IB3xQ")
LIES: dict[str, Callable[[int], bytes]] = {
    "a length of 4 GiB": lambda _: HEADER.pack(0xFFFFFFFF, Op.DONE, 1),
    "a length over the operation's cap": lambda n: HEADER.pack(1, Op.LOADED, n) + b"x",
    "an unknown operation": lambda n: HEADER.pack(0, 99, n),
    "an operation of the other side": lambda n: frame(Op.START, n),
    "READY twice": lambda _: frame(Op.READY, 0, pack_ready(Ready("full", FINGERPRINT))),
    "LOADED for nothing": lambda n: frame(Op.LOADED, n),
    "the end of a stranger": lambda n: done(n + 1),
    "the end twice": lambda n: done(n) + done(n),
    "an output over the limit": lambda n: done(n, b"x" * (LIMITS.output_bytes + 1)),
    "more fuel than the limit": lambda n: pack_done(n, b"", None, Usage(fuel=(1 << 64) - 1), [], logs_cut=False),
    "more host calls than the limit": lambda n: pack_done(n, b"", None, Usage(host_calls=1 << 30), [], logs_cut=False),
    "a log level that does not exist": lambda n: done(n, b"", (LogLine("\x1b[2J", "", 0),)),
    "more log lines than the limit": lambda n: done(n, b"", (LogLine("info", "", 0),) * 257),
    "more log than the limit": lambda n: done(n, b"", (LogLine("info", "x" * 100_000, 0),)),
    "an end that does not parse": lambda n: frame(Op.DONE, n, b"\xff" * 20),
    "an unknown failure": lambda n: frame(Op.DONE, n, b"\x63" + done(n)[17:]),
    "an end with trailing bytes": lambda n: frame(Op.DONE, n, done(n)[16:] + b"x"),
    "log lines that lie about their length": lambda n: frame(
        Op.DONE, n, done(n, b"", (LogLine("info", "abc", 0),))[16:-3]
    ),
    "a call of a stranger": lambda n: pack_call(n + 7, "kv", "get", b"", fuel_used=0),
    "a call without names": lambda n: frame(Op.CALL, n, bytes(10)),
    "a call with a lying length": lambda n: frame(Op.CALL, n, bytes(8) + b"\xff\xff"),
    "a call with names that are not ASCII": lambda n: frame(Op.CALL, n, bytes(8) + b"\x01\x01\xff\xff"),
    "a call with a huge argument": lambda n: pack_call(n, "kv", "get", b"x" * ((1 << 20) + 1), fuel_used=0),
    "a call with more fuel than the limit": lambda n: pack_call(n, "kv", "get", b"", fuel_used=LIMITS.fuel + 1),
    "two calls at once": lambda n: pack_call(n, "kv", "get", b"", fuel_used=0) * 2,
    "a report that nobody asked for": lambda n: frame(Op.REPORT, n, b"\0"),
    "a report of a stranger": lambda n: frame(Op.REPORT, n + 7, b"\0"),
    "a report over the cap of all": lambda n: HEADER.pack((8 << 20) + 2, Op.REPORT, n),
    "its own failure": lambda _: frame(Op.FAILED, 0, b"ValueError: \x1b[31m"),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
async def test_a_lie_kills_that_worker(
    hostile: TakenOver, child: "subprocess.Popen[bytes]", lie: Callable[[int], bytes]
) -> None:
    task, number = await start(hostile)
    data = memoryview(lie(number))
    with contextlib.suppress(ConnectionError):  # killed while it still lies
        await asyncio.get_running_loop().sock_sendall(hostile.socket, data)
    await hostile.worker.exited.wait()
    assert child.returncode == -9
    outcome = await task
    assert outcome.failure == Failure(FailureKind.CRASH, "the worker process ended") or outcome.output == b""
    assert hostile.worker.reason is not None
    assert "\x1b" not in hostile.worker.reason
    with pytest.raises(WorkerError, match="gone"):
        await hostile.worker.load("more", guests.compiled(guests.ECHO))


RECORDED = RecordOrder(seed=bytes(32), tape_bytes_max=100)
LYING_REPORTS: dict[str, Callable[[int], bytes]] = {
    "empty": lambda n: frame(Op.REPORT, n),
    "longer than was ordered": lambda n: frame(Op.REPORT, n, bytes(102)),
    "twice": lambda n: frame(Op.REPORT, n, b"\0") * 2,
    "after the end": lambda n: done(n) + frame(Op.REPORT, n, b"\0"),
}


@pytest.mark.parametrize("lie", LYING_REPORTS.values(), ids=LYING_REPORTS.keys())
async def test_a_report_that_lies_kills_that_worker(
    hostile: TakenOver, child: "subprocess.Popen[bytes]", lie: Callable[[int], bytes]
) -> None:
    task, number = await start(hostile, order=RECORDED)
    hostile.say(lie(number))
    await hostile.worker.exited.wait()
    assert child.returncode == -9
    await task


async def test_of_a_report_nothing_is_believed_but_its_length(hostile: TakenOver) -> None:
    task, number = await start(hostile, order=RECORDED)
    nonsense = b"\x04" + b"[" * 99 + b"\xff"
    hostile.say(frame(Op.REPORT, number, nonsense) + done(number, b"out"))
    outcome = await task
    assert outcome.output == b"out"
    assert outcome.report == nonsense


async def test_more_host_calls_than_the_limit_kill_it(hostile: TakenOver) -> None:
    host = Echoing()
    task, number = await start(hostile, host=host)
    for _ in range(LIMITS.host_calls):
        hostile.say(pack_call(number, "kv", "get", b"1", fuel_used=0))
        (op, answered, _), *_ = await hostile.frames()
        assert (op, answered) == (Op.ANSWER, number)
    hostile.say(pack_call(number, "kv", "get", b"1", fuel_used=0))
    await hostile.worker.exited.wait()
    assert (await task).failure is not None
    assert len(host.calls) == LIMITS.host_calls


async def test_an_end_that_comes_while_its_host_call_is_being_stopped_is_heard(hostile: TakenOver) -> None:
    class Reluctant(Echoing):
        async def call(self, interface: str, function: str, argument: bytes) -> bytes:
            try:
                await asyncio.sleep(60)
            finally:
                stopping.set()
                await asyncio.sleep(0.05)
            return b""

    stopping = asyncio.Event()
    task, number = await start(hostile)
    hostile.say(done(number))
    await task
    request = InvocationRequest(code_id="code", abi="command", limits=replace(LIMITS, wall_ms=1_000), granted=guests.KV)
    task = asyncio.ensure_future(hostile.worker.invoke(request, Reluctant()))
    (_, number, _), *_ = await hostile.frames()
    beside = asyncio.ensure_future(hostile.worker.invoke(replace(request, limits=LIMITS), Echoing()))
    (_, other, _), *_ = await hostile.frames()
    hostile.say(pack_call(number, "kv", "get", b"", fuel_used=0))
    await stopping.wait()
    late = pack_done(number, b"in time", None, Usage(host_calls=1), [], logs_cut=False)
    hostile.say(late + done(other, b"heard"))
    assert (await task).output == b"in time"
    assert (await asyncio.wait_for(beside, 30)).output == b"heard"


async def test_fuel_that_comes_back_kills_it(hostile: TakenOver) -> None:
    task, number = await start(hostile)
    hostile.say(pack_call(number, "kv", "get", b"1", fuel_used=100))
    (op, _, _), *_ = await hostile.frames()
    assert op == Op.ANSWER
    hostile.say(pack_call(number, "kv", "get", b"1", fuel_used=99))
    await hostile.worker.exited.wait()
    assert (await task).failure is not None


async def test_bytes_that_come_one_by_one_are_understood(hostile: TakenOver) -> None:
    task, number = await start(hostile)
    for byte in done(number, b"slow"):
        hostile.say(bytes((byte,)))
        await asyncio.sleep(0)
    assert (await task).output == b"slow"


async def test_a_worker_that_stops_reading_blocks_nobody_and_ends_at_the_deadline(hostile: TakenOver) -> None:
    task, number = await start(hostile)
    hostile.say(done(number))
    await task
    request = InvocationRequest(
        code_id="code", abi="command", input=b"x" * 65_536, limits=replace(LIMITS, wall_ms=100), granted=guests.KV
    )
    outcomes = await asyncio.gather(*(hostile.worker.invoke(request, Echoing()) for _ in range(50)))
    assert {outcome.failure.kind for outcome in outcomes if outcome.failure} == {FailureKind.DEADLINE}


async def test_a_worker_that_closes_its_socket_is_gone(hostile: TakenOver) -> None:
    task, _ = await start(hostile)
    hostile.socket.close()
    outcome = await task
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.CRASH
    await hostile.worker.exited.wait()


async def until_gone(hostile: TakenOver, child: "subprocess.Popen[bytes]", why: str) -> None:
    async with asyncio.timeout(20):
        await hostile.worker.exited.wait()
    assert child.returncode == -9
    assert why in (hostile.worker.reason or "")


async def say_all(hostile: TakenOver, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):  # killed while it still speaks
        await asyncio.get_running_loop().sock_sendall(hostile.socket, data)


@pytest.mark.parametrize(
    ("op", "length"),
    [(Op.DONE, 90 << 20), (Op.LOG, 200_000), (Op.CALL, 1 << 20)],
    ids=["the longest end", "a long line", "a call of a stranger"],
)
async def test_a_long_frame_that_nothing_justifies_is_refused_by_its_header(
    hostile: TakenOver, child: "subprocess.Popen[bytes]", op: Op, length: int
) -> None:
    """What never comes would otherwise be waited for, and what comes kept."""
    task, number = await start(hostile)
    await say_all(hostile, HEADER.pack(length, op, number + (op == Op.CALL)))
    await until_gone(hostile, child, "it broke the protocol")
    await task


async def test_a_call_before_the_last_answer_was_read_is_refused(
    hostile: TakenOver, child: "subprocess.Popen[bytes]"
) -> None:
    """Else a worker that never reads would fill the broker with answers, one limit of host calls long."""

    class Generous:
        calls = 0

        async def call(self, interface: str, function: str, argument: bytes) -> bytes:
            del interface, function, argument
            self.calls += 1
            return b"x" * (4 << 20)

    host = Generous()
    task, number = await start(hostile, host=host)  # type: ignore[arg-type]  # another host
    hostile.say(pack_call(number, "kv", "get", b"1", fuel_used=0))
    while hostile.worker._channel.sent == hostile.worker._channel.queued:  # noqa: ASYNC110 - it has no event to offer
        await asyncio.sleep(0.001)
    hostile.say(pack_call(number, "kv", "get", b"1", fuel_used=0))
    await until_gone(hostile, child, "after the answer to the last")
    assert host.calls == 1
    await task


async def test_an_answer_that_was_read_may_be_followed_by_a_call(hostile: TakenOver) -> None:
    host = Echoing()
    task, number = await start(hostile, host=host)
    for _ in range(3):
        hostile.say(pack_call(number, "kv", "get", b"x" * 100_000, fuel_used=0))
        heard: list[tuple[int, int, bytes]] = []
        while not heard:
            heard = await hostile.frames()
    hostile.say(pack_done(number, b"", None, Usage(host_calls=3), [], logs_cut=False))
    assert (await task).usage.host_calls == 3


async def test_fewer_host_calls_than_were_carried_out_is_a_lie(
    hostile: TakenOver, child: "subprocess.Popen[bytes]"
) -> None:
    task, number = await start(hostile)
    hostile.say(pack_call(number, "kv", "get", b"1", fuel_used=0))
    await hostile.frames()
    hostile.say(done(number))
    await until_gone(hostile, child, "within the limits")
    await task


async def test_time_that_has_not_passed_is_not_believed(hostile: TakenOver) -> None:
    task, number = await start(hostile)
    hostile.say(pack_done(number, b"", None, Usage(wall_us=LIMITS.wall_ms * 1_000), [], logs_cut=False))
    assert (await task).usage.wall_us < LIMITS.wall_ms * 1_000 // 2


async def test_calls_after_a_cancellation_are_one_at_most(hostile: TakenOver, child: "subprocess.Popen[bytes]") -> None:
    host = Echoing()
    task, number = await start(hostile, host=host)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    hostile.say(pack_call(number, "kv", "get", b"1", fuel_used=0))  # it was on its way
    await asyncio.sleep(0.05)
    assert not hostile.worker.exited.is_set()
    hostile.say(pack_call(number, "kv", "get", b"1", fuel_used=0))
    await until_gone(hostile, child, "within the limit")
    assert host.calls == []


async def test_an_honest_worker_outlives_cancellations() -> None:
    worker = await Worker.start(WorkerSettings(slots=5))
    try:
        text = guests.ask(b"kv.get", b"{}")
        await worker.load(text, guests.compiled(text))
        asked = asyncio.Event()

        class Slow:
            async def call(self, interface: str, function: str, argument: bytes) -> bytes:
                del interface, function, argument
                asked.set()
                await asyncio.Event().wait()
                return b""

        request = InvocationRequest(code_id=text, abi="command", limits=LIMITS, granted=guests.KV)
        for _ in range(3):
            asked.clear()
            task = asyncio.ensure_future(worker.invoke(request, Slow()))
            await asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert (await guests.run(worker, guests.ECHO, data=b"well")).output == b"well"
        await guests.until_empty(worker)
        assert worker.reason is None
    finally:
        await worker.stop()


async def test_streamed_lines_are_charged_by_their_length(hostile: TakenOver, child: "subprocess.Popen[bytes]") -> None:
    task, number = await start(hostile)
    hostile.say(done(number))
    await task
    heard: list[LogLine] = []
    request = InvocationRequest(
        code_id="code", abi="command", limits=replace(LIMITS, log_bytes=100_000), granted=guests.KV, stream_logs=True
    )
    task = asyncio.ensure_future(hostile.worker.invoke(request, Echoing(), heard.append))
    (_, number, _), *_ = await hostile.frames()
    await say_all(hostile, pack_log(number, LogLine("info", "x" * 60_000, 0)) * 50)
    await until_gone(hostile, child, "log lines within the limit")
    assert len(heard) == 9  # each costs a sixth of its length: escaping made at most six of one
    await task


async def test_a_frame_that_is_never_finished_ends_the_worker(child: "subprocess.Popen[bytes]") -> None:
    async with taken_over(child, stall_s=0.2) as hostile:
        task, number = await start(hostile)
        with contextlib.suppress(ConnectionError):  # killed while it still speaks
            for byte in done(number, b"slow")[:-1]:
                await asyncio.sleep(0.005)
                hostile.say(bytes((byte,)))
        await until_gone(hostile, child, "it did not finish a frame for 0.2 s")
        assert (await task).failure is not None


async def test_a_worker_that_never_reads_is_ended_before_its_deadlines(child: "subprocess.Popen[bytes]") -> None:
    async with taken_over(child, stall_s=0.2) as hostile:
        task, number = await start(hostile)
        hostile.say(done(number))
        await task
        limits = replace(LIMITS, wall_ms=60_000, input_bytes=1 << 20)
        request = InvocationRequest(
            code_id="code", abi="command", input=b"x" * (1 << 20), limits=limits, granted=guests.KV
        )
        outcome = await hostile.worker.invoke(request, Echoing())
        assert outcome.failure == Failure(FailureKind.CRASH, "the worker process ended")
        await until_gone(hostile, child, "it did not read for 0.2 s")


async def test_a_flood_leaves_turns_to_others(hostile: TakenOver) -> None:
    """Ten thousand frames in one read are handed on in portions; what else the node does comes between."""
    task, number = await start(hostile)
    hostile.say(done(number))
    await task
    request = InvocationRequest(
        code_id="code", abi="command", limits=replace(LIMITS, log_bytes=1 << 20), granted=guests.KV, stream_logs=True
    )
    heard: list[int] = []
    turns = [0]
    task = asyncio.ensure_future(hostile.worker.invoke(request, Echoing(), lambda _: heard.append(turns[0])))
    (_, number, _), *_ = await hostile.frames()
    flood = pack_log(number, LogLine("info", "", 0)) * 5_000
    sending = asyncio.ensure_future(say_all(hostile, flood))
    while len(heard) < 5_000:
        turns[0] += 1
        await asyncio.sleep(0)
    await sending
    portions = [heard.count(turn) for turn in set(heard)]
    assert max(portions) <= 512  # the rest of one portion, and the first of the next read
    hostile.say(pack_done(number, b"", None, Usage(), [], logs_cut=False))
    await task


async def test_the_last_words_of_a_worker_count_however_many(
    hostile: TakenOver, child: "subprocess.Popen[bytes]"
) -> None:
    task, number = await start(hostile)
    hostile.say(done(number))
    await task
    request = InvocationRequest(code_id="code", abi="command", limits=LIMITS, granted=guests.KV)
    tasks = [asyncio.ensure_future(hostile.worker.invoke(request, Echoing())) for _ in range(600)]
    numbers: list[int] = []
    while len(numbers) < 600:
        numbers += [number for op, number, _ in await hostile.frames() if op == Op.START]
    hostile.socket.setblocking(True)
    hostile.say(b"".join(done(each, b"last") for each in numbers))
    hostile.socket.close()
    child.kill()
    assert {outcome.output for outcome in await asyncio.gather(*tasks)} == {b"last"}


async def test_a_taken_over_worker_leaves_its_neighbours_alone(
    hostile: TakenOver, child: "subprocess.Popen[bytes]"
) -> None:
    other = await Worker.start(WorkerSettings(slots=5))
    try:
        task, number = await start(hostile)
        beside = asyncio.ensure_future(guests.run(other, guests.sleeper(200_000_000)))
        await say_all(hostile, frame(Op.LOADED, number + 99) * 1_000)
        await until_gone(hostile, child, "it broke the protocol")
        assert (await task).failure is not None
        assert (await beside).output == b"7"
        assert (await guests.run(other, guests.ECHO, data=b"well")).output == b"well"
    finally:
        await other.stop()
