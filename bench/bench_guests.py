"""What holding a guest, metering it and letting it call the host cost, each as a ratio within one run.

Run as ``python -m bench.bench_guests``; ``rows()`` is what ``python -m bench`` collects.
"""

import asyncio
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import wasmtime

from bench.bench_node import row
from bench.bench_sandbox import LIMITS, REQUEST, latencies, resident_kib
from sandbox.core_module import CoreLinker, CoreModule
from sandbox.engine import Engine, EngineSettings, Store, wat2wasm
from sandbox.request import InvocationRequest
from sandbox.supervisor import Worker, WorkerSettings
from tests.images import compiled_image
from tests.isolation import guests
from tests.isolation.guests import Echoing, compiled

Row = dict[str, Any]

PYTHON_IN_FLIGHT = 1_000
SLEEPER = b"import time\ndef process(text):\n    time.sleep(60)\n    return text\n"
HOST_CALLS = 500
ROUNDS = 7

LOOP = """(module (memory (export "memory") 1) (func (export "_start") (local $n i32) (local $at i32)
  (local.set $n (i32.const 30000000))
  (loop $more
    (i32.store (local.get $at) (i32.add (i32.load (local.get $at)) (local.get $n)))
    (local.set $at (i32.and (i32.add (local.get $at) (i32.const 4)) (i32.const 0xfffc)))
    (br_if $more (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))))"""


async def rows() -> list[Row]:
    """Measure everything; under a minute."""
    return [*metering(), *await host_call(), *await python_in_flight()]


def metering() -> list[Row]:
    """Run the same loop with fuel and slices, as every guest runs, and on an engine that counts nothing."""
    wasm = wat2wasm(LOOP)
    engine = Engine(EngineSettings(slots=4))
    linked = CoreLinker(engine).link(CoreModule.deserialize(engine, CoreModule.compile(Engine(), wasm).serialize()))
    config = wasmtime.Config()
    config.max_wasm_stack = 512 * 1024
    plain_engine = wasmtime.Engine(config)
    plain_module = wasmtime.Module(plain_engine, wasm)

    def metered() -> float:
        store = Store(engine, fuel=10**12, memory_bytes=1 << 20, table_elements=10, instances=4, tables=4, memories=1)
        call, instance = linked.instantiate(store)
        call.poll()
        call.finish()
        began = time.perf_counter()
        call = instance.start(b"_start")
        while not call.poll():
            pass
        took = time.perf_counter() - began
        call.finish()
        store.close()
        return took

    def plain() -> float:
        store = wasmtime.Store(plain_engine)
        start: Any = wasmtime.Instance(store, plain_module, []).exports(store)["_start"]
        began = time.perf_counter()
        start(store)
        return time.perf_counter() - began

    with_fuel, without = [], []
    for _ in range(ROUNDS):
        without.append(plain())
        with_fuel.append(metered())
    return [
        row("metering: a loop with fuel and slices / without", min(with_fuel) / min(without), "x"),
        row("metering: the loop without", min(without) * 1e3, "ms"),
    ]


async def host_call() -> list[Row]:
    """Compare guests that make one and many host calls, answered at once by the supervisor's side."""
    many = guests.command(
        f"(local $n i32) (local.set $n (i32.const {HOST_CALLS})) (loop $more"
        " (drop (call $call (i32.const 256) (i32.const 6) (i32.const 1024) (i32.const 2) (i32.const 2048)"
        " (i32.const 512))) (br_if $more (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))",
        rest='(data (i32.const 256) "kv.get") (data (i32.const 1024) "{}")',
    )
    worker = await Worker.start(WorkerSettings(slots=16))
    for code_id, text in (("many", many), ("echo", guests.ECHO)):
        await worker.load(code_id, compiled(text))
    request = replace(REQUEST, code_id="many", limits=replace(LIMITS, host_calls=HOST_CALLS))
    calling = await latencies(lambda: worker.invoke(request, Echoing()), 40)
    alone = await latencies(lambda: worker.invoke(REQUEST, Echoing()), 1_000)
    await worker.stop()
    each_us = (statistics.median(calling) - statistics.median(alone)) / HOST_CALLS
    return [
        row("host call: there and back, one after another", each_us, "us"),
        row("host call / a whole invocation of a small agent", each_us / statistics.median(alone), "x"),
    ]


async def python_in_flight() -> list[Row]:
    """Count the memory of sleeping CPython agents, each in an interpreter of its own."""
    worker = await Worker.start(WorkerSettings(slots=PYTHON_IN_FLIGHT))
    await worker.load("python", compiled_image())
    request = InvocationRequest(
        code_id="python", abi="image", source=SLEEPER, input=b"x", limits=replace(LIMITS, wall_ms=120_000)
    )
    await _settled(worker, [asyncio.ensure_future(worker.invoke(request, Echoing()))])
    before = own_kib(worker.pid)
    began = time.perf_counter()
    asleep = [asyncio.ensure_future(worker.invoke(request, Echoing())) for _ in range(PYTHON_IN_FLIGHT - 1)]
    await guests.until_in_flight(worker, PYTHON_IN_FLIGHT - 1)
    resident, grown = 0, resident_kib(worker.pid)
    while grown > resident:  # until the last has begun to sleep
        resident = grown
        await asyncio.sleep(1)
        grown = resident_kib(worker.pid)
    took_s = time.perf_counter() - began
    after = own_kib(worker.pid)
    await _settled(worker, asleep)
    await worker.stop()
    each_mib = (after - before) / 1024 / (PYTHON_IN_FLIGHT - 1)
    return [
        row(f"in flight: {PYTHON_IN_FLIGHT:,} CPython agents asleep, each", each_mib, "MiB", 6.0),
        row(f"in flight: {PYTHON_IN_FLIGHT:,} CPython agents started in", took_s, "s"),
    ]


def own_kib(pid: int) -> int:
    """Return a process's memory, a page that it maps many times counted once (Pss), as the kernel lets root see it.

    Every interpreter maps the pages of the snapshot that it has not written to; the resident set counts each of them.
    """
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except PermissionError:
        return resident_kib(pid)
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))


async def _settled(worker: Worker, tasks: list["asyncio.Task[Any]"]) -> None:
    """Let a task that sleeps begin, then stop them all."""
    await asyncio.sleep(0.5)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await guests.until_empty(worker)


def main() -> None:
    for each in asyncio.run(rows()):
        mark = "" if each["bar"] is None else f"  bar {each['bar']:g}  {'ok' if each['ok'] else 'MISSED'}"
        print(f"{each['name']:<66} {each['value']:>10.3f} {each['unit']:<3}{mark}")


if __name__ == "__main__":
    main()
