"""Spans and metrics reach a collector over OTLP; the trace context crosses the wire with and without one."""

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from service.client_interceptors import RetryPolicy, intercept_aio_channel
from service.identity import Identity
from service.local_ca import LocalCa
from service.otlp_export import OtlpEndpointError, checked_endpoint
from service.telemetry import (
    INVOCATION_SECONDS,
    INVOCATIONS,
    SUBSCRIBERS,
    Field,
    ServiceName,
    SpanName,
    Telemetry,
    current_trace_context,
    start_telemetry,
)
from templates.reasons import Reason
from tests.integration.echo_world import SERVICE, Echo, EchoStub, World, say
from tests.otlp_collector import Collected, collecting, points
from tests.recorded_tracing import PARENT, TRACE


@pytest.fixture
def received() -> Iterator[Collected]:
    with collecting() as collected:
        yield collected


def exporting(endpoint: str, ratio: float = 1.0) -> Telemetry:
    return start_telemetry(service_name=ServiceName.NODE, instance="n1", otlp_endpoint=endpoint, trace_ratio=ratio)


def test_spans_and_metrics_reach_the_collector(received: Collected) -> None:
    telemetry = exporting(received.endpoint)
    with telemetry.span(SpanName.RPC_SERVER, {Field.METHOD: "/x"}, parent=PARENT) as span:
        span.set(Field.PEER, "me")
        with telemetry.span(SpanName.INVOKE) as inner:
            inner.fail("FUEL")
    telemetry.count(INVOCATIONS, "a/b@1.0.0", "FUEL")
    telemetry.gauge(SUBSCRIBERS, 3)
    for seconds in (0.0001, 0.02, 500.0):
        telemetry.observe(INVOCATION_SECONDS, seconds, "a/b@1.0.0")
    telemetry.close()

    outer, invoke = received.one(SpanName.RPC_SERVER), received.one(SpanName.INVOKE)
    assert outer.trace_id == invoke.trace_id == TRACE
    assert outer.parent_id == "b7ad6b7169203331"
    assert invoke.parent_id == outer.span_id
    assert outer.attributes == {"method": "/x", "peer": "me"}
    assert (outer.kind, invoke.kind) == ("SERVER", "INTERNAL")
    assert (outer.failed, invoke.failed, invoke.message) == (False, True, "FUEL")
    assert (outer.service, outer.instance) == ("agentfactory-node", "n1")

    metrics = received.metrics["agentfactory-node"]
    counted = metrics["agentfactory_invocations"].sum
    assert counted.is_monotonic
    assert [point.as_double for point in counted.data_points] == [1.0]
    assert 0 < counted.data_points[0].start_time_unix_nano <= counted.data_points[0].time_unix_nano
    assert points(metrics["agentfactory_subscribers"])[()].as_double == 3.0
    (observed,) = points(metrics["agentfactory_invocation_seconds"]).values()
    assert (observed.count, observed.sum) == (3, pytest.approx(500.0201))
    assert list(observed.explicit_bounds) == list(INVOCATION_SECONDS.buckets)
    assert sum(observed.bucket_counts) == 3
    assert observed.bucket_counts[0] == observed.bucket_counts[-1] == 1
    assert not observed.HasField("min")


def test_work_of_another_process_is_as_long_as_that_process_says(received: Collected) -> None:
    telemetry = exporting(received.endpoint)
    with telemetry.span(SpanName.INVOKE, parent=""):
        time.sleep(0.05)
        with telemetry.reported_span(SpanName.SANDBOX) as sandbox:
            sandbox.set(Field.FUEL, 7)
            sandbox.took(0.0)
        with telemetry.reported_span(SpanName.SANDBOX) as sandbox:
            sandbox.fail("CRASH")
            sandbox.took(3600.0)
        with telemetry.reported_span(SpanName.SANDBOX):
            pass
    telemetry.close()
    invoke = received.one(SpanName.INVOKE)
    instant, boastful, silent = sorted(received.named(SpanName.SANDBOX), key=lambda each: each.end_ns)
    assert all(each.parent_id == invoke.span_id and each.trace_id == invoke.trace_id for each in (instant, boastful))
    assert (instant.took_s, instant.attributes) == (0.0, {"fuel": 7})
    assert invoke.contains(boastful)
    assert (boastful.failed, boastful.message) == (True, "CRASH")
    assert invoke.contains(silent)


def test_a_span_of_another_program_in_this_process_is_not_ours(received: Collected) -> None:
    telemetry = exporting(received.endpoint)
    theirs = SpanContext(int(TRACE, 16), 1, is_remote=False, trace_flags=TraceFlags(1))
    with trace.use_span(NonRecordingSpan(theirs)), telemetry.span(SpanName.PUBLISH, parent=""):
        pass
    telemetry.close()
    assert received.one(SpanName.PUBLISH).parent_id == ""


def test_a_trace_that_its_caller_does_not_sample_is_not_sent(received: Collected) -> None:
    telemetry = exporting(received.endpoint)
    with telemetry.span(SpanName.RPC_SERVER, parent=PARENT[:-1] + "0"):
        with telemetry.reported_span(SpanName.SANDBOX) as sandbox:
            sandbox.took(0.001)
        assert current_trace_context().endswith("-00")
    telemetry.close()
    telemetry = exporting(received.endpoint, ratio=0.0)
    with telemetry.span(SpanName.RPC_SERVER, parent=""):
        pass
    telemetry.close()
    assert received.spans == []


async def test_one_trace_crosses_client_and_server(tmp_path: Path, received: Collected) -> None:
    telemetry = exporting(received.endpoint)
    world = World(tmp_path, Echo(), telemetry=telemetry)
    async with world.serving() as server, world.channel(server) as channel:
        stub = EchoStub(intercept_aio_channel(channel, RetryPolicy()))
        with telemetry.span(SpanName.CHANGE_SUBMIT, parent=""):
            await stub.unary(say("x"))
    telemetry.close()
    call = received.one(SpanName.RPC_SERVER)
    assert call.parent_id == received.one(SpanName.CHANGE_SUBMIT).span_id
    assert call.attributes["method"] == f"/{SERVICE}/Unary"


def test_a_program_that_ends_soon_sends_spans_alone(received: Collected) -> None:
    telemetry = start_telemetry(
        service_name=ServiceName.AGENTCTL, instance="1", otlp_endpoint=received.endpoint, brief=True
    )
    with telemetry.span(SpanName.COMMAND):
        pass
    telemetry.close()
    assert received.one(SpanName.COMMAND).kind == "CLIENT"
    assert received.metrics == {}


def test_a_collector_is_reached_over_tls_with_the_standard_variables(
    tmp_path: Path, received: Collected, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    authority = LocalCa.create(tmp_path / "ca", trust_domain="collector.test", now=now)
    issued = authority.issue(Identity.node("collector.test", "c"), now=now, dns_names=["localhost"])
    files = issued.write(tmp_path / "collector")
    pair = (files.key.read_bytes(), files.certificate.read_bytes())
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(files.authorities))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-scope=factory")
    with collecting(grpc.ssl_server_credentials([pair])) as secured:
        telemetry = exporting(secured.endpoint)
        with telemetry.span(SpanName.PUBLISH):
            pass
        telemetry.close()
        assert secured.one(SpanName.PUBLISH).service == "agentfactory-node"
        assert all(each["x-scope"] == "factory" for each in secured.metadata)


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
