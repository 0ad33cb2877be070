"""What the jail costs a worker: its start, its calls and its memory, beside a worker without one in the same run.

Part of ``bench_sandbox``. The two kinds take turns, so that a machine that is busy is busy for both.
"""

import asyncio
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import wasmtime

from sandbox import process
from sandbox.jail_launch import INTERPRETER, RUN
from sandbox.limits import SandboxLimits
from sandbox.request import InvocationRequest
from sandbox.supervisor import Worker, WorkerSettings
from tests.images import compiled_image
from tests.isolation import guests
from tests.isolation.guests import Echoing, compiled

SETTINGS = WorkerSettings(slots=1_000)
ROUNDS = 9
PACKAGE = str(Path(__file__).resolve().parent.parent)
SITE = str(Path(wasmtime.__file__).resolve().parent.parent)
SOURCE = b"def process(input, config=None):\n    return input\n"
LIMITS = SandboxLimits(memory_bytes=128 << 20)


async def jailed() -> Worker:
    return await Worker.start(SETTINGS)


async def unjailed() -> Worker:
    """Start the same worker as one process, without launcher, namespaces, Landlock, seccomp or limits."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        descriptor = theirs.fileno()
        arguments = ("", str(SETTINGS.slots), str(SETTINGS.memory_slot_bytes))
        child = subprocess.Popen(  # noqa: ASYNC220 - as fast as it can be
            [*INTERPRETER, "-c", RUN, PACKAGE, SITE, "bench.unjailed_worker", str(descriptor), *arguments],
            stdout=subprocess.DEVNULL,
            env={},
            cwd="/",
            pass_fds=(descriptor,),
        )
    worker = Worker(SETTINGS, ours, child)
    ready = await worker._ready  # noqa: SLF001 - what `Worker.start` does with its own child
    worker.level, worker._fingerprint = ready.level, ready.fingerprint  # noqa: SLF001
    return worker


KINDS: dict[str, Callable[[], Awaitable[Worker]]] = {"jailed": jailed, "unjailed": unjailed}


async def start_ms(kind: str) -> float:
    began = time.perf_counter()
    worker = await KINDS[kind]()
    took = time.perf_counter() - began
    await worker.stop()
    return took * 1e3


async def call_us(worker: Worker, request: InvocationRequest, count: int) -> float:
    """Return the median of so many calls one after another."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        outcome = await worker.invoke(request, Echoing())
        times.append(time.perf_counter() - began)
        if outcome.failure is not None:
            raise RuntimeError(f"expected an output, got {outcome.failure}")
    return statistics.median(times) * 1e6


def private_kib(pid: int) -> int:
    """Return what this process has for itself."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


async def measure(figure: Callable[..., float]) -> None:
    """Measure both kinds in turns; ``figure(name, value, unit)`` takes the results."""
    starts: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(ROUNDS):
        for kind in KINDS:
            starts[kind].append(await start_ms(kind))
    medians = {kind: statistics.median(times) for kind, times in starts.items()}
    workers = {kind: await make() for kind, make in KINDS.items()}
    loads: dict[str, float] = {}
    for kind, worker in workers.items():
        await worker.load("echo", compiled(guests.ECHO))
        began = time.perf_counter()
        await worker.load("cpython", compiled_image())
        loads[kind] = (time.perf_counter() - began) * 1e3
    echo = InvocationRequest(code_id="echo", abi="command", input=b"x" * 1_024, limits=LIMITS, granted=guests.KV)
    python = InvocationRequest(code_id="cpython", abi="image", source=SOURCE, input=b'"x"', limits=LIMITS)
    calls: dict[tuple[str, str], list[float]] = {(kind, name): [] for kind in KINDS for name in ("echo", "CPython")}
    for _ in range(ROUNDS):
        for kind, worker in workers.items():
            calls[kind, "echo"].append(await call_us(worker, echo, 500))
            calls[kind, "CPython"].append(await call_us(worker, python, 20))
    memory = {kind: private_kib(worker.pid) for kind, worker in workers.items()}
    figure("jail: level reached", process.LEVELS.index(workers["jailed"].level) + 1, "of 3")
    for worker in workers.values():
        await worker.stop()
    figure("jail: start of a worker", medians["jailed"], "ms")
    figure("jail: cost of the jail, start with / without", medians["jailed"] / medians["unjailed"], "x")
    figure("jail: loading the CPython image", loads["jailed"], "ms")
    for name in ("echo", "CPython"):
        with_, without = (statistics.median(calls[kind, name]) for kind in KINDS)
        figure(f"jail: {name} with the jail, median", with_, "us")
        figure(f"jail: cost of the jail, {name} with / without", with_ / without, "x", bar=1.1)
    figure("jail: private memory with the jail", memory["jailed"] / 1_024, "MiB")
    figure("jail: cost of the jail, private memory with / without", memory["jailed"] / memory["unjailed"], "x")


def main() -> None:
    asyncio.run(measure(lambda name, value, unit, **_: sys.stderr.write(f"{name:<72}{value:>12.2f} {unit}\n")))


if __name__ == "__main__":
    main()
