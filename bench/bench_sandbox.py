"""What an invocation of a small command costs on its way through a worker, and where the time goes.

    python -m bench.bench_sandbox [-o build/bench_sandbox.json]

Ratios are taken within one run, against an echo of the same bytes over a socket pair with a blocking peer: the cheapest
possible worker. The output is a list of {"name", "value", "unit", "bar", "ok"}.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from bench import bench_jail
from sandbox.command import CommandProgram
from sandbox.core_module import CoreLinker, CoreModule
from sandbox.engine import Engine, EngineSettings, Store
from sandbox.fibers import Invocation, Turn
from sandbox.frames import TO_SUPERVISOR, TO_WORKER, FrameReader, pack_done, pack_start, read_done, read_start
from sandbox.limits import SandboxLimits
from sandbox.outcome import Outcome, Usage
from sandbox.request import InvocationRequest
from sandbox.scheduler import Scheduler
from sandbox.supervisor import Worker, WorkerSettings
from sandbox.worker import HostClock
from tests.isolation import guests
from tests.isolation.guests import Echoing, compiled

INPUT = b"x" * 1_024
LIMITS = SandboxLimits(memory_bytes=64 << 20)
ENDLESS = replace(LIMITS, fuel=10**18, host_calls=10**9, wasi_calls=10**9, wall_ms=600_000)
REQUEST = InvocationRequest(code_id="echo", abi="command", input=INPUT, limits=LIMITS, granted=guests.KV)
ECHO_PEER = (
    "import socket, sys\n"
    "peer = socket.socket(fileno=int(sys.argv[1]))\n"
    "while data := peer.recv(262144): peer.sendall(data)\n"
)


class Figure(TypedDict):
    name: str
    value: float
    unit: str
    bar: float | None
    ok: bool


FIGURES: list[Figure] = []


def figure(name: str, value: float, unit: str, *, bar: float | None = None, least: bool = False) -> float:
    ok = bar is None or (value >= bar if least else value <= bar)
    FIGURES.append({"name": name, "value": round(value, 3), "unit": unit, "bar": bar, "ok": ok})
    print(f"{name:<72}{value:>12.2f} {unit}{'' if bar is None else f'   bar {bar}'}", file=sys.stderr)
    return value


def repeat(what: Callable[[], object], count: int = 5_000) -> float:
    """Return the median microseconds of one call."""
    for _ in range(count // 10):
        what()
    times = []
    for _ in range(count):
        began = time.perf_counter()
        what()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


async def latencies(what: Callable[[], Awaitable[object]], count: int) -> list[float]:
    """Return sorted microseconds of calls one after another."""
    for _ in range(count // 10):
        await what()
    times = []
    for _ in range(count):
        began = time.perf_counter()
        await what()
        times.append((time.perf_counter() - began) * 1e6)
    return sorted(times)


async def rate(what: Callable[[], Awaitable[object]], callers: int, count: int) -> float:
    """Return calls per second of so many callers, each with one call at a time."""

    async def caller() -> None:
        for _ in range(count // callers):
            await what()

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return count // callers * callers / (time.perf_counter() - began)


class NoWorker:
    """A blocking peer that sends back what it reads: a worker that does nothing."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair()
        self._ours.setblocking(False)
        with theirs:
            descriptor = theirs.fileno()
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", ECHO_PEER, str(descriptor)], pass_fds=(descriptor,)
            )
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Future[None]
        self._loop.add_reader(self._ours, self._on_readable)
        self._left = 0

    def _on_readable(self) -> None:
        self._left -= len(self._ours.recv(1 << 18))
        if self._left == 0:
            self._waiting.set_result(None)

    async def call(self) -> None:
        self._waiting, self._left = self._loop.create_future(), len(INPUT)
        self._ours.send(INPUT)
        await self._waiting

    def stop(self) -> None:
        self._loop.remove_reader(self._ours)
        self._ours.close()
        self._child.wait()


def breakdown() -> None:
    """Time the parts in one process, without a socket."""
    engine = Engine(EngineSettings(slots=1_000))
    module = CoreModule.deserialize(engine, compiled(guests.ECHO).code)
    empty = CoreModule.deserialize(engine, compiled(guests.command("")).code)
    linked = CoreLinker(engine).link(empty)
    turn = Turn(HostClock(), os.urandom)

    class Outbox:
        def finished(self, invocation: Invocation, output: bytes | None, usage: Usage) -> None:
            pack_done(1, output, invocation.failure, usage, invocation.logs, logs_cut=invocation.logs_cut)

        def host_call(self, *call: object) -> None:
            raise RuntimeError(f"the guest makes no host calls: {call}")

    scheduler = Scheduler(engine, slots=1_000, turn=turn, outbox=Outbox())
    program, nothing = CommandProgram(engine, module, turn), CommandProgram(engine, empty, turn)
    payload = pack_start(1, 1, 0, time.monotonic_ns() + 10**12, REQUEST)[16:]
    done = pack_done(1, INPUT, None, Usage(), [], logs_cut=False)[16:]

    def bare() -> None:
        store = Store(engine, fuel=10**9, memory_bytes=1 << 26, table_elements=1_000, instances=4, tables=4, memories=2)
        call, instance = linked.instantiate(store)
        call.poll()
        call.finish()
        call = instance.start(b"_start")
        call.poll()
        call.finish()
        store.close()

    def through(which: CommandProgram) -> None:
        start = read_start(payload)
        invocation = Invocation(
            1, turn=turn, link=scheduler, limits=start.limits, deadline_ns=start.deadline_ns, input=start.input,
            config=start.config, granted=start.granted,
        )  # fmt: skip
        scheduler.start(invocation, which)
        scheduler.run(time.monotonic_ns() + 10**9)

    engine_us = figure("part: store, instance, call and disposal in the engine", repeat(bare), "us")
    nothing_us = figure("part: + START, invocation, turn, DONE", repeat(lambda: through(nothing)), "us")
    whole_us = figure("part: + 4 virtual WASI calls moving 2 x 1 KiB", repeat(lambda: through(program)), "us")
    figure("part: one virtual WASI call", (whole_us - nothing_us) / 4, "us")
    figure("part: the worker's own bookkeeping", nothing_us - engine_us, "us")
    figure("part: pack START in the supervisor", repeat(lambda: pack_start(1, 1, 0, 1, REQUEST)), "us")
    figure("part: read DONE in the supervisor", repeat(lambda: read_done(done, LIMITS)), "us")
    frames = pack_done(1, INPUT, None, Usage(), [], logs_cut=False) * 100
    figure(
        "part: cut one frame out of a batch",
        repeat(lambda: list(FrameReader(TO_SUPERVISOR).feed(frames)), 500) / 100,
        "us",
    )
    starts = pack_start(1, 1, 0, 1, REQUEST) * 100
    figure(
        "part: cut one START out of a batch", repeat(lambda: list(FrameReader(TO_WORKER).feed(starts)), 500) / 100, "us"
    )


async def paths() -> None:
    """Time whole invocations through a real worker."""
    began = time.perf_counter()
    worker = await Worker.start(WorkerSettings(slots=2_000))
    figure("worker: start to ready", (time.perf_counter() - began) * 1e3, "ms")
    none, host = NoWorker(), Echoing()
    ask = guests.ask(b"kv.get", b"{}")
    for code_id, text in (
        ("echo", guests.ECHO),
        ("ask", ask),
        ("spin", guests.SPINNER),
        ("hammer", guests.HOST_HAMMERER),
    ):
        await worker.load(code_id, compiled(text))

    async def echo() -> Outcome:
        return await worker.invoke(REQUEST, host)

    outcome = await echo()
    assert outcome.output == INPUT, outcome
    bare = await latencies(none.call, 3_000)
    alone = await latencies(echo, 3_000)
    figure("socket echo, median", bare[1_500], "us")
    figure("invocation, concurrency 1, median", alone[1_500], "us")
    figure("invocation, concurrency 1, p99", alone[2_970], "us")
    figure("invocation / socket echo, median", alone[1_500] / bare[1_500], "x")
    asking = replace(REQUEST, code_id="ask")
    asked = await latencies(lambda: worker.invoke(asking, host), 2_000)
    figure("invocation with one host call, median", asked[1_000], "us")
    rates = {}
    for callers in (1, 10, 100, 1_000):
        rates[callers] = figure(f"rate at {callers} callers", await rate(echo, callers, 10_000), "/s")
    figure("rate at 1,000 callers / rate at 1", rates[1_000] / rates[1], "x")
    await neighbours(worker, echo)
    none.stop()
    await worker.stop()


async def neighbours(worker: Worker, echo: Callable[[], Awaitable[Outcome]]) -> None:
    """Measure 100 ordinary callers alone, and beside one hostile guest."""

    async def p99() -> float:
        times: list[float] = []

        async def caller() -> None:
            for _ in range(50):
                began = time.perf_counter()
                await echo()
                times.append((time.perf_counter() - began) * 1e3)

        await asyncio.gather(*(caller() for _ in range(100)))
        return sorted(times)[int(len(times) * 0.99)]

    await p99()
    alone = figure("100 callers, p99", await p99(), "ms")
    for name in ("spin", "hammer"):
        hostile = asyncio.ensure_future(worker.invoke(replace(REQUEST, code_id=name, limits=ENDLESS), Echoing()))
        await asyncio.sleep(0.1)
        figure(f"100 callers beside one {name}, p99 / alone", await p99() / alone, "x", bar=2.0)
        beside = await latencies(echo, 1_000)
        figure(f"one caller beside one {name}, median", beside[500], "us")
        hostile.cancel()
        await asyncio.gather(hostile, return_exceptions=True)


async def in_flight(count: int) -> None:
    """Measure how many sleepers one worker holds, and what each costs."""
    worker = await Worker.start(WorkerSettings(slots=count, memory_slot_bytes=64 << 20))
    await worker.load("sleep", compiled(guests.sleeper(20_000_000_000)))
    await worker.load("echo", compiled(guests.ECHO))
    await worker.invoke(REQUEST, Echoing())
    before = resident_kib(worker.pid)
    request = replace(REQUEST, code_id="sleep", input=b"", limits=replace(LIMITS, wall_ms=60_000))
    began = time.perf_counter()
    asleep = [asyncio.ensure_future(worker.invoke(request, Echoing())) for _ in range(count - 1)]
    await guests.until_in_flight(worker, count - 1)
    await worker.invoke(REQUEST, Echoing())  # answered after all of them have started
    took = time.perf_counter() - began
    figure(f"in flight: {count} asleep, started in", took, "s")
    figure("in flight: each", (resident_kib(worker.pid) - before) / count, "KiB", bar=32.0)
    for task in asleep:
        task.cancel()
    await asyncio.gather(*asleep, return_exceptions=True)
    await worker.stop()


def resident_kib(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--in-flight", type=int, default=10_000)
    options = parser.parse_args()
    breakdown()
    asyncio.run(paths())
    asyncio.run(in_flight(options.in_flight))
    asyncio.run(bench_jail.measure(figure))
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(FIGURES, indent=1))


if __name__ == "__main__":
    main()
