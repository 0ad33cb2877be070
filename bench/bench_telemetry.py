"""What telemetry adds to an invocation: the same node without any, with none configured, and with a collector.

``python -m bench.bench_telemetry`` starts all three beside each other and calls them in turn, so that whatever else the
machine does hits all of them. Beside it stands the cost of the calls themselves, from a loop in this process.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from agentfactory.agent.v1 import agent_pb2 as pb
from agentfactory.agent.v1 import agent_pb2_grpc

from bench.bench_node import aio_channel, process
from service.telemetry import (
    INVOCATION_FUEL,
    INVOCATION_SECONDS,
    INVOCATIONS,
    RPC_SERVER_CALLS,
    RPC_SERVER_SECONDS,
    Field,
    ServiceName,
    SpanName,
    Telemetry,
    current_trace_context,
    current_trace_id,
)
from tests.isolation import guests
from tests.node_world import NodeWorld
from tests.otlp_collector import collecting

METHOD: Final = "/agentfactory.agent.v1.AgentService/InvokeTemplate"
WARM_CALLS: Final = 300
ROUNDS: Final = 400
CALLS: Final = 10
LOOPS: Final = 50_000

WITHOUT, OFF, ON = "no telemetry at all", "no collector (default)", "every call to a collector"


def run_node_without_telemetry() -> None:
    """Be a node whose telemetry does nothing, not even count."""
    nothing = Telemetry().span(SpanName.INVOKE)
    replaced: dict[str, Any] = {
        "span": lambda *_args, **_named: nothing,
        "reported_span": lambda *_args: nothing,
        "count": lambda *_args, **_named: None,
        "observe": lambda *_args: None,
    }
    for name, replacement in replaced.items():
        setattr(Telemetry, name, replacement)

    from data_plane.main import main as run_node

    sys.argv = ["agentfactory-node"]
    run_node()


def per_invocation_us(telemetry: Telemetry) -> tuple[float, float]:
    """Return what the spans, and the metrics, of one invocation cost: the calls that the node makes, and no others."""
    attributes: dict[str, Any] = {Field.METHOD: METHOD}

    def spans() -> None:
        with telemetry.span(SpanName.RPC_SERVER, attributes, parent="") as call:
            current_trace_id()
            call.set(Field.PEER, "spiffe://bench/tenant/acme/service/web")
            with telemetry.span(SpanName.INVOKE) as invoke:
                invoke.set(Field.TEMPLATE, "docs/echo@1.0.0")
                invoke.set(Field.INVOCATION, "0123456789abcdef")
                with telemetry.reported_span(SpanName.SANDBOX):
                    current_trace_context()
                    _ = telemetry.tracing

    def metrics() -> None:
        telemetry.count(INVOCATIONS, "docs/echo", "")
        telemetry.observe(INVOCATION_SECONDS, 0.001, "docs/echo")
        telemetry.count(INVOCATION_FUEL, "docs/echo", amount=1000)
        telemetry.count(RPC_SERVER_CALLS, METHOD, "OK")
        telemetry.observe(RPC_SERVER_SECONDS, 0.001, METHOD)

    def once_us(work: Any) -> float:
        best = float("inf")
        for _ in range(5):
            started = time.perf_counter()
            for _ in range(LOOPS // 5):
                work()
            best = min(best, time.perf_counter() - started)
        return best / (LOOPS // 5) * 1e6

    return once_us(spans), once_us(metrics)


async def measure() -> dict[str, list[float]]:
    """Return the medians of each round, in microseconds, by kind of node."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-telemetry-")))
        collected = stack.enter_context(collecting())
        world = NodeWorld.make(directory)
        world.publish(world.command("docs/echo", guests.ECHO))
        kinds = {
            WITHOUT: (["bench.bench_telemetry", "--node"], {}),
            OFF: (["data_plane.main"], {}),
            ON: (["data_plane.main"], {"otlp_endpoint": collected.endpoint}),
        }
        calls: dict[str, Any] = {}
        request = pb.InvokeTemplateRequest(template="docs/echo", input="x" * 64)
        for number, (kind, (arguments, settings)) in enumerate(kinds.items()):
            name = f"n{number}"
            world.seed(name)
            environment = world.environment(name, spare_workers="0", **settings)
            port = stack.enter_context(process(arguments, environment, directory / f"{name}.log"))
            channel = await stack.enter_async_context(aio_channel(port, world.installation.service("web")))
            stub: Any = agent_pb2_grpc.AgentServiceStub(channel)
            calls[kind] = stub.InvokeTemplate
            for _ in range(WARM_CALLS):
                await stub.InvokeTemplate(request, timeout=30)
        took: dict[str, list[float]] = {kind: [] for kind in kinds}
        order = list(calls.items())
        for _ in range(ROUNDS):
            order = [*order[1:], order[0]]
            for kind, call in order:
                times = []
                for _ in range(CALLS):
                    started = time.perf_counter()
                    await call(request, timeout=30)
                    times.append(time.perf_counter() - started)
                took[kind].append(statistics.median(times) * 1e6)
        return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--node", action="store_true", help="be the node without telemetry")
    if parser.parse_args().node:
        run_node_without_telemetry()
        return
    spans_us, metrics_us = per_invocation_us(Telemetry(service=ServiceName.NODE))
    print(f"calls of one invocation, no collector: spans {spans_us:.2f} us, metrics {metrics_us:.2f} us")
    took = asyncio.run(measure())
    least = statistics.median(took[WITHOUT])
    for kind, medians in took.items():
        added = statistics.median(one - other for one, other in zip(medians, took[WITHOUT], strict=True))
        median = statistics.median(medians)
        print(f"{kind:26} {median:7.0f} us  {median / least:.3f} x  {added:+6.1f} us beside none at all")


if __name__ == "__main__":
    main()
