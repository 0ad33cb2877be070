"""Frames from a worker that an attacker has taken over: that worker is killed, and nothing it says is believed."""

import asyncio
import contextlib
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from sandbox.frames import TO_WORKER, FrameReader, Op, Ready, frame, pack_call, pack_done, pack_ready
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


@pytest.fixture
async def hostile(child: "subprocess.Popen[bytes]") -> AsyncIterator[TakenOver]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with theirs:
        worker = Worker(WorkerSettings(), ours, child)
        player = TakenOver(worker, theirs, FrameReader(TO_WORKER))
        worker._fingerprint = FINGERPRINT
        player.say(frame(Op.READY, 0, pack_ready(Ready("rlimits-only", FINGERPRINT))))
        yield player
        await worker.stop()


async def start(hostile: TakenOver, *, host: Echoing | None = None) -> tuple["asyncio.Task[Outcome]", int]:
    """Load code, start an invocation; return its task and its number."""
    code = replace(guests.compiled(guests.ECHO), engine_fingerprint=FINGERPRINT)
    loading = asyncio.ensure_future(hostile.worker.load("code", code))
    (op, number, _), *_ = await hostile.frames()
    assert op == Op.LOAD
    hostile.say(frame(Op.LOADED, number))
    await loading
    request = InvocationRequest(code_id="code", abi="command", limits=LIMITS, granted=guests.KV)
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
