"""A fresh instance by language: the same agent, as ``agentctl template new`` writes it, through one worker.

    python -m bench.bench_languages

Each agent counts the words of 1 KiB. Ratios are taken within one run against the bare command module that echoes its
input; beside them stands what people would do otherwise, a Python process per call. Modules are built once and kept.
"""

import asyncio
import hashlib
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final

from client.authoring.building import ToolchainMissingError, build
from client.authoring.languages import LANGUAGES
from client.authoring.scaffold import begin
from sandbox.compile_cache import CompileCache
from sandbox.limits import SandboxLimits
from sandbox.request import CompiledCode, InvocationRequest
from sandbox.supervisor import Worker, WorkerSettings
from templates.document import SourceCode, read_template
from tests.images import BUILD, compiled_image
from tests.isolation import guests
from tests.isolation.guests import Echoing

AGENTS: Final = BUILD / "bench" / "languages"
INPUT: Final = b"four words are here " * 51
LIMITS: Final = SandboxLimits(memory_bytes=128 << 20)
CONFIG: Final = b'{"words_max": 100000}'
CALLS: Final = 200
PROCESS_CALLS: Final = 20
LONG_SOURCE_BYTES: Final = 54_000

Row = dict[str, Any]
Once = Callable[[], Awaitable[object]]


def row(name: str, value: float, unit: str) -> Row:
    return {"name": name, "value": round(value, 3), "unit": unit, "bar": None, "ok": True}


async def rows() -> list[Row]:
    """Measure every language whose toolchain is here."""
    worker = await Worker.start(WorkerSettings())
    host = Echoing()
    try:
        await worker.load("echo", guests.compiled(guests.ECHO))
        bare = await _timed(
            lambda: worker.invoke(InvocationRequest(code_id="echo", abi="command", input=INPUT, limits=LIMITS), host)
        )
        bare_ms = statistics.median(bare)
        found = [row("fresh instance, bare command module: median", bare_ms, "ms")]
        for name in LANGUAGES:
            request = await _ready(worker, name)
            if request is None:
                continue

            async def once(request: InvocationRequest = request) -> object:
                outcome = await worker.invoke(request, host)
                if outcome.output is None:
                    raise RuntimeError(f"{request.code_id}: {outcome.failure}")
                return outcome

            took = await _timed(once)
            found += [
                row(f"fresh instance, {name}: median", statistics.median(took), "ms"),
                row(f"fresh instance, {name}: p95", sorted(took)[int(len(took) * 0.95)], "ms"),
                row(f"fresh instance, {name} / bare command module", statistics.median(took) / bare_ms, "x"),
            ]
        found += [one async for one in _translations(worker, host)]
    finally:
        await worker.stop()
    process_ms = statistics.median(_processes())
    found.append(row("a Python process per call (python -I -c): median", process_ms, "ms"))
    found.append(row("a Python process per call / bare command module", process_ms / bare_ms, "x"))
    return found


async def _ready(worker: Worker, name: str) -> InvocationRequest | None:
    document = AGENTS / name / "template.json"
    if not document.exists():
        begin(LANGUAGES[name], name="bench", domain="dev", folder=document.parent)
    template = read_template(document.read_bytes())
    code = template.code
    if isinstance(code, SourceCode):
        compiled, source = compiled_image(code.image), (document.parent / code.source).read_bytes()
    else:
        module = document.parent / "agent.wasm"
        try:
            if not module.exists():
                build(document, tell=lambda _line: None)
        except ToolchainMissingError as error:
            print(f"{name}: {error.message}", file=sys.stderr)
            return None
        compiled, source = await _compiled(module.read_bytes()), None
    await worker.load(name, compiled)
    return InvocationRequest(
        code_id=name, abi=compiled.abi, source=source, input=INPUT, config=CONFIG, limits=LIMITS, granted=guests.KV
    )


async def _compiled(wasm: bytes) -> CompiledCode:
    key = hashlib.sha256(b"a key for benches").digest()
    return await CompileCache(BUILD / "bench" / "compiled", key=key).compile(wasm)


async def _translations(worker: Worker, host: Echoing) -> AsyncIterator[Row]:
    """What the first invocation of a long source in a worker pays, and every later one does not."""
    for name, line, tail in (
        ("python", "def f{n}(x):\n    return x + {n}\n", "def process(text):\n    return text\n"),
        ("javascript", "function f{n}(x) {{\n  return x + {n};\n}}\n", "export function process(t) {{ return t; }}\n"),
    ):
        source = "".join(line.format(n=n) for n in range(LONG_SOURCE_BYTES // len(line))) + tail.format()
        request = InvocationRequest(
            code_id=name, abi="image", source=source.encode(), input=b"x", config=CONFIG, limits=LIMITS
        )

        async def once(request: InvocationRequest = request) -> object:
            return await worker.invoke(request, host)

        (first,) = await _timed(once, 1)
        yield row(f"54 KB of {name}, first invocation in a worker", first, "ms")
        yield row(f"54 KB of {name}, every later one: median", statistics.median(await _timed(once, 20)), "ms")


async def _timed(once: Once, calls: int = CALLS) -> list[float]:
    """Return milliseconds of calls one after another, after a few that do not count where there are many."""
    for _ in range(calls // 10):
        await once()
    took = []
    for _ in range(calls):
        began = time.perf_counter()
        await once()
        took.append((time.perf_counter() - began) * 1e3)
    return took


def _processes() -> Iterator[float]:
    program = "import json, sys; print(json.dumps({'words': len(sys.stdin.read().split())}))"
    for _ in range(PROCESS_CALLS):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-c", program], input=INPUT, capture_output=True, check=True)
        yield (time.perf_counter() - began) * 1e3


def main() -> None:
    for each in asyncio.run(rows()):
        print(f"{each['name']:<66} {each['value']:>10.3f} {each['unit']}")


if __name__ == "__main__":
    main()
