"""Spans and metrics reach a collector over OTLP; the trace context crosses the wire with and without one."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from service.client_interceptors import RetryPolicy, intercept_aio_channel
from service.otlp_export import OtlpEndpointError, checked_endpoint
from service.telemetry import (
    INVOCATION_SECONDS,
    INVOCATIONS,
    SUBSCRIBERS,
    Field,
    SpanName,
    Telemetry,
    start_telemetry,
)
from templates.reasons import Reason
from tests.integration.echo_world import SERVICE, Echo, EchoStub, World, say

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class Collector(trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer):
    """Takes both kinds of exports, and keeps them."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[Any] = []
        self.metrics: dict[str, Any] = {}

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 -- grpc's name
        if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
            for resource in request.resource_spans:
                self.resources.append(resource.resource)
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
            return trace_service_pb2.ExportTraceServiceResponse()
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                self.metrics |= {metric.name: metric for metric in scope.metrics}
        return metrics_service_pb2.ExportMetricsServiceResponse()


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    collector = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield collector, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


def exporting(endpoint: str, ratio: float = 1.0) -> Telemetry:
    return start_telemetry(service_name="agentfactory-node", instance="n1", otlp_endpoint=endpoint, trace_ratio=ratio)


def test_spans_and_metrics_reach_the_collector(collector: tuple[Collector, str]) -> None:
    received, endpoint = collector
    telemetry = exporting(endpoint)
    with telemetry.span(SpanName.RPC_SERVER, {Field.METHOD: "/x"}, parent=PARENT) as span:
        span.set(Field.PEER, "me")
        with telemetry.span(SpanName.INVOKE) as inner:
            inner.fail("FUEL")
    telemetry.count(INVOCATIONS, "a/b@1.0.0", "FUEL")
    telemetry.gauge(SUBSCRIBERS, 3)
    for seconds in (0.0001, 0.02, 500.0):
        telemetry.observe(INVOCATION_SECONDS, seconds, "a/b@1.0.0")
    telemetry.close()

    spans = {span.name: span for span in received.spans}
    outer, invoke = spans[SpanName.RPC_SERVER], spans[SpanName.INVOKE]
    assert outer.trace_id.hex() == invoke.trace_id.hex() == TRACE
    assert outer.parent_span_id.hex() == "b7ad6b7169203331"
    assert invoke.parent_span_id == outer.span_id
    assert {each.key: each.value.string_value for each in outer.attributes} == {"method": "/x", "peer": "me"}
    assert invoke.status.message == "FUEL"
    names = {each.key: each.value.string_value for each in received.resources[0].attributes}
    assert (names["service.name"], names["service.instance.id"]) == ("agentfactory-node", "n1")

    counted = received.metrics["agentfactory_invocations"].sum
    assert counted.is_monotonic
    assert [point.as_double for point in counted.data_points] == [1.0]
    assert 0 < counted.data_points[0].start_time_unix_nano <= counted.data_points[0].time_unix_nano
    assert received.metrics["agentfactory_subscribers"].gauge.data_points[0].as_double == 3.0
    observed = received.metrics["agentfactory_invocation_seconds"].histogram.data_points[0]
    assert (observed.count, observed.sum) == (3, pytest.approx(500.0201))
    assert list(observed.explicit_bounds) == list(INVOCATION_SECONDS.buckets)
    assert sum(observed.bucket_counts) == 3
    assert observed.bucket_counts[0] == observed.bucket_counts[-1] == 1
    assert not observed.HasField("min")


def test_a_trace_that_its_caller_does_not_sample_is_not_sent(collector: tuple[Collector, str]) -> None:
    received, endpoint = collector
    telemetry = exporting(endpoint)
    with telemetry.span(SpanName.RPC_SERVER, parent=PARENT[:-1] + "0"):
        pass
    telemetry.close()
    telemetry = exporting(endpoint, ratio=0.0)
    with telemetry.span(SpanName.RPC_SERVER, parent=""):
        pass
    telemetry.close()
    assert received.spans == []


async def test_one_trace_crosses_client_and_server(tmp_path: Path, collector: tuple[Collector, str]) -> None:
    received, endpoint = collector
    telemetry = exporting(endpoint)
    world = World(tmp_path, Echo(), telemetry=telemetry)
    async with world.serving() as server, world.channel(server) as channel:
        stub = EchoStub(intercept_aio_channel(channel, RetryPolicy()))
        with telemetry.span(SpanName.CHANGE_SUBMIT, parent=""):
            await stub.unary(say("x"))
    telemetry.close()
    spans = {span.name: span for span in received.spans}
    assert spans[SpanName.RPC_SERVER].parent_span_id == spans[SpanName.CHANGE_SUBMIT].span_id
    method = {each.key: each.value.string_value for each in spans[SpanName.RPC_SERVER].attributes}["method"]
    assert method == f"/{SERVICE}/Unary"


def test_a_collector_that_is_gone_harms_nobody() -> None:
    telemetry = exporting("http://127.0.0.1:1")
    with telemetry.span(SpanName.INVOKE):
        telemetry.count(INVOCATIONS, "a/b@1.0.0", "")
    telemetry.close()


@pytest.mark.parametrize(
    "endpoint",
    ["collector:4317", "http://collector:4317", "ftp://127.0.0.1", "https://", "", "http://127.0.0.1.evil.test"],
)
def test_telemetry_is_not_sent_in_the_clear(endpoint: str) -> None:
    with pytest.raises(OtlpEndpointError) as caught:
        checked_endpoint(endpoint)
    assert caught.value.reason is Reason.INVALID_SETTINGS


def test_without_a_collector_opentelemetry_is_not_even_imported() -> None:
    script = (
        "import sys; from service.telemetry import start_telemetry;"
        "start_telemetry(service_name='x', instance='y').close();"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", script], cwd=root, check=False).returncode == 0
