"""One node beside a bare gRPC echo with the same TLS, in one run: what an invocation costs, and where its time goes.

Both servers are processes of their own, the load comes from this one. Rounds alternate, so that whatever else the
machine does hits both. Run as ``python -m bench.bench_node``; ``rows()`` is what ``python -m bench`` collects.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from agentfactory.agent.v1 import agent_pb2 as pb
from agentfactory.agent.v1 import agent_pb2_grpc

from service.tls import TlsFiles, channel_credentials, server_credentials
from tests.isolation import guests
from tests.node_world import NodeWorld

REPOSITORY = Path(__file__).resolve().parent.parent
ECHO_METHOD = "/bench.Echo/Invoke"
MODULE_AGENT = REPOSITORY / "bench" / "module_agent"
MODULE_OUTPUT = REPOSITORY / "build" / "bench" / "module_agent.wasm"
MODULE_GRANTS = {"kv": {"namespace": "bench", "bytes_max": 65_536}, "agents": ["docs/*"]}
SOURCE = "def process(text):\n    return text.upper()\n"
SCRIPT = "export function process(text) { return text.toUpperCase(); }\n"
LATENCY_ROUNDS, LATENCY_CALLS = 8, 100
RATE_ROUNDS, RATE_CALLERS, RATE_CALLS = 3, 1_000, 4_000
PYTHON_CALLS, CREATE_CALLS = 150, 300

Row = dict[str, Any]
Once = Callable[[], Awaitable[Any]]


def row(name: str, value: float, unit: str, bar: float | None = None, *, at_least: bool = False) -> Row:
    ok = bar is None or (value >= bar if at_least else value <= bar)
    return {"name": name, "value": round(value, 4), "unit": unit, "bar": bar, "ok": ok}


async def serve_echo(files: TlsFiles) -> None:
    """The yardstick: what grpc.aio costs with this TLS and these messages, and nothing else."""

    async def invoke(request: pb.InvokeTemplateRequest, context: Any) -> pb.InvokeResponse:  # noqa: ARG001
        return pb.InvokeResponse(output=request.input)

    handler = grpc.unary_unary_rpc_method_handler(
        invoke,
        request_deserializer=pb.InvokeTemplateRequest.FromString,
        response_serializer=pb.InvokeResponse.SerializeToString,
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"Invoke": handler}),))
    port = server.add_secure_port("127.0.0.1:0", server_credentials(files))
    await server.start()
    print(json.dumps({"event": "node_started", "port": port}), file=sys.stderr, flush=True)
    await server.wait_for_termination()


@contextmanager
def process(arguments: list[str], environment: dict[str, str], log: Path) -> Iterator[int]:
    """Run a server whose log goes to a file (a pipe would burden the load generator) and yield its port."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AGENTFACTORY_")}
    with log.open("w") as file:
        child = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=REPOSITORY,
            env={**inherited, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'proto/gen'}", **environment},
            stderr=file,
        )
    try:
        while True:
            for line in log.read_text().splitlines():
                if '"node_started"' in line:
                    yield int(json.loads(line)["port"])
                    return
            if child.poll() is not None:
                raise RuntimeError(f"expected a server, got {log.read_text()[-2000:]}")
            time.sleep(0.01)
    finally:
        child.terminate()
        child.wait(30)


def aio_channel(port: int, files: TlsFiles) -> grpc.aio.Channel:
    return grpc.aio.secure_channel(f"localhost:{port}", channel_credentials(files))


async def timed(once: Once, calls: int) -> list[float]:
    """Return the seconds of each of ``calls`` calls, one after the other."""
    took = []
    for _ in range(calls):
        started = time.perf_counter()
        await once()
        took.append(time.perf_counter() - started)
    return took


@dataclass
class Load:
    rate: float
    failures: int


async def loaded(once: Once, *, callers: int, calls: int) -> Load:
    """Return the rate at which ``callers`` at a time get ``calls`` answers."""
    left = calls
    failures = 0

    async def caller() -> None:
        nonlocal left, failures
        while left > 0:
            left -= 1
            try:
                await once()
            except grpc.aio.AioRpcError as error:
                failures += 1
                if failures < 4:
                    print("failure:", error.code(), error.details(), file=sys.stderr)

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return Load(calls / (time.perf_counter() - started), failures)


def p95(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]


def module_agent() -> bytes:
    """Build the CPython module agent once; its digest differs from build to build, so that it is kept."""
    if not MODULE_OUTPUT.exists():
        MODULE_OUTPUT.parent.mkdir(parents=True, exist_ok=True)
        tool = Path(sys.executable).with_name("componentize-py")
        world = ("-d", str(REPOSITORY / "sandbox" / "wit"), "-w", "agent")
        paths = ("-p", str(MODULE_AGENT), "-o", str(MODULE_OUTPUT))
        subprocess.run([str(tool), "-q", *world, "componentize", "app", *paths], check=True)
    return MODULE_OUTPUT.read_bytes()


async def rows() -> list[Row]:
    """Measure everything; half a minute on a quiet machine, and longer when the image must be compiled first."""
    with tempfile.TemporaryDirectory(prefix="bench-node-") as name:
        directory = Path(name)
        world = NodeWorld.make(directory)
        world.publish(
            world.command("docs/echo", guests.ECHO),
            world.source("docs/upper", SOURCE),
            world.source("docs/script", SCRIPT, image="quickjs", file="agent.js"),
            world.module("docs/module", module_agent(), abi="component", grants=MODULE_GRANTS),
        )
        world.seed()
        node = ["data_plane.main"]
        with process(node, world.environment(), directory / "first.log") as port:
            await _first_answer(world, port)  # compiles the image; later starts find it in the cache
        started = time.perf_counter()
        with (
            process(node, world.environment(), directory / "node.log") as port,
            process(["bench.bench_node", "--echo", str(directory)], {}, directory / "echo.log") as echo_port,
        ):
            await _first_answer(world, port)
            start_s = time.perf_counter() - started
            files = world.installation.service("web")
            async with aio_channel(port, files) as channel, aio_channel(echo_port, files) as echo_channel:
                measured = await _measure(agent_pb2_grpc.AgentServiceStub(channel), _echo_of(echo_channel))
    return [*measured, row("node start from disk to first answer", start_s, "s", 3.0)]


async def _first_answer(world: NodeWorld, port: int) -> None:
    async with aio_channel(port, world.installation.service("web")) as channel:
        stub: Any = agent_pb2_grpc.AgentServiceStub(channel)
        await stub.InvokeTemplate(
            pb.InvokeTemplateRequest(template="docs/upper", input="x"), timeout=120, wait_for_ready=True
        )


def _echo_of(channel: grpc.aio.Channel) -> Any:
    return channel.unary_unary(
        ECHO_METHOD,
        request_serializer=pb.InvokeTemplateRequest.SerializeToString,
        response_deserializer=pb.InvokeResponse.FromString,
    )


async def _measure(stub: Any, echo: Any) -> list[Row]:
    request = pb.InvokeTemplateRequest(template="docs/echo", input="hello, agent")
    python = pb.InvokeTemplateRequest(template="docs/upper", input="hello, agent")
    spent: list[tuple[float, float]] = []

    async def echo_once() -> None:
        await echo(request, timeout=30)

    async def invoke_once() -> None:
        answer = await stub.InvokeTemplate(request, timeout=30)
        usage = answer.receipt.usage
        spent.append((usage.wall.nanos / 1e9 + usage.wall.seconds, usage.guest.nanos / 1e9))

    await timed(echo_once, 50)
    await timed(invoke_once, 50)
    spent.clear()
    bare, invoked = [], []
    for _ in range(LATENCY_ROUNDS):
        bare += await timed(echo_once, LATENCY_CALLS)
        invoked += await timed(invoke_once, LATENCY_CALLS)
    bare_s, invoked_s = statistics.median(bare), statistics.median(invoked)
    wall_s = statistics.median(wall for wall, _ in spent)
    guest_s = statistics.median(guest for _, guest in spent)

    took_python = await timed(lambda: stub.InvokeTemplate(python, timeout=30), PYTHON_CALLS)
    module = pb.InvokeTemplateRequest(template="docs/module", input="hello, agent")
    await timed(lambda: stub.InvokeTemplate(module, timeout=60), 3)
    took_module = await timed(lambda: stub.InvokeTemplate(module, timeout=30), PYTHON_CALLS)
    script = pb.InvokeTemplateRequest(template="docs/script", input="hello, agent")
    await timed(lambda: stub.InvokeTemplate(script, timeout=60), 3)
    took_script = await timed(lambda: stub.InvokeTemplate(script, timeout=30), PYTHON_CALLS)
    create = pb.CreateAgentRequest(template="docs/echo", config='{"depth": 3}')
    took_create = await timed(lambda: stub.CreateAgent(create, timeout=30), CREATE_CALLS)
    bare_create = await timed(echo_once, CREATE_CALLS)

    bare_rates, rates, failures = [], [], 0
    for _ in range(RATE_ROUNDS):
        bare_rates.append((await loaded(echo_once, callers=RATE_CALLERS, calls=RATE_CALLS)).rate)
        load = await loaded(invoke_once, callers=RATE_CALLERS, calls=RATE_CALLS)
        rates.append(load.rate)
        failures += load.failures
    bare_rate, rate = statistics.median(bare_rates), statistics.median(rates)
    return [
        row("invoke a small agent / bare echo, median", invoked_s / bare_s, "x", 1.7),
        row("bare echo, median", bare_s * 1e3, "ms"),
        row("invoke a small agent, median", invoked_s * 1e3, "ms"),
        row("invoke breakdown: transport, guard and messages", (invoked_s - wall_s) * 1e3, "ms"),
        row("invoke breakdown: admission, frames and waiting for the worker", (wall_s - guest_s) * 1e3, "ms"),
        row("invoke breakdown: guest, fresh instance included", guest_s * 1e3, "ms"),
        row(f"rate of the small agent / echo at {RATE_CALLERS} callers", rate / bare_rate, "x", 0.55, at_least=True),
        row(f"rate of the small agent at {RATE_CALLERS} callers", rate, "/s", 1_000, at_least=True),
        row(f"rate of the bare echo at {RATE_CALLERS} callers", bare_rate, "/s"),
        row(f"failures at {RATE_CALLERS} callers", failures, "", 0),
        row("CPython source agent, median", statistics.median(took_python) * 1e3, "ms", 7),
        row("CPython source agent, p95", p95(took_python) * 1e3, "ms", 12),
        row("CPython module agent, median", statistics.median(took_module) * 1e3, "ms", 4),
        row("CPython module agent, p95", p95(took_module) * 1e3, "ms", 8),
        row("QuickJS source agent, median", statistics.median(took_script) * 1e3, "ms", 3),
        row("QuickJS source agent, p95", p95(took_script) * 1e3, "ms", 6),
        row("CreateAgent, median", statistics.median(took_create) * 1e3, "ms"),
        row("CreateAgent, p95", p95(took_create) * 1e3, "ms", 5),
        row("bare echo beside CreateAgent, p95", p95(bare_create) * 1e3, "ms"),
    ]


def main() -> None:
    if len(sys.argv) == 3 and sys.argv[1] == "--echo":
        base = Path(sys.argv[2]) / "identities" / "node-n1"
        files = TlsFiles(certificate=base / "cert.pem", key=base / "key.pem", authorities=base / "ca.pem")
        asyncio.run(serve_echo(files))
        return
    for each in asyncio.run(rows()):
        mark = "" if each["bar"] is None else f"  bar {each['bar']:g}  {'ok' if each['ok'] else 'MISSED'}"
        print(f"{each['name']:<66} {each['value']:>10.3f} {each['unit']:<3}{mark}")


if __name__ == "__main__":
    main()
