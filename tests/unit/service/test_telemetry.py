import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from service.status import UnavailableError
from service.telemetry import (
    INVOCATIONS,
    METRICS,
    PUSH_SECONDS,
    RPC_SERVER_IN_FLIGHT,
    SUBSCRIBERS,
    Field,
    ServiceName,
    SpanName,
    Telemetry,
    continued,
    current_trace_context,
    current_trace_id,
    outside_of_traces,
    received_trace_context,
    start_telemetry,
    trace_metadata,
)
from tests.recorded_tracing import PARENT, TRACE, RecordedTracing


def test_without_a_collector_a_span_does_nothing_and_passes_the_context_on() -> None:
    telemetry = Telemetry()
    assert not telemetry.tracing
    with telemetry.span(SpanName.INVOKE, parent=PARENT) as span:
        span.set(Field.FUEL, 7)
        span.fail("X")
        span.end()
        assert current_trace_context() == PARENT
        assert current_trace_id() == TRACE
        assert trace_metadata() == (("traceparent", PARENT),)
        with telemetry.span(SpanName.SANDBOX):
            assert current_trace_context() == PARENT
    assert current_trace_context() == current_trace_id() == ""
    assert trace_metadata() == ()
    telemetry.close()


def test_spans_nest_and_name_their_parent() -> None:
    tracing = RecordedTracing()
    telemetry = Telemetry(tracing=tracing)
    assert telemetry.tracing
    assert tracing.registry is telemetry.registry
    with telemetry.span(SpanName.RPC_SERVER, {Field.METHOD: "/a"}, parent=PARENT), telemetry.span(SpanName.INVOKE):
        assert current_trace_context().endswith("0000000000000002-01")
    first, second = tracing.spans
    assert (first.name, first.parent, first.attributes) == (SpanName.RPC_SERVER, PARENT, {"method": "/a"})
    assert second.parent == f"00-{TRACE}-0000000000000001-01"
    assert first.ends == second.ends == 1
    assert current_trace_context() == ""
    telemetry.close()
    assert tracing.closed


@pytest.mark.parametrize(
    ("error", "failure"), [(UnavailableError("x"), "UNAVAILABLE"), (ValueError("pw"), "ValueError")]
)
def test_an_exception_marks_the_span_without_its_text(error: Exception, failure: str) -> None:
    tracing = RecordedTracing()
    with pytest.raises(type(error)), Telemetry(tracing=tracing).span(SpanName.INVOKE):
        raise error
    assert tracing.spans[0].failure == failure
    assert tracing.spans[0].ends == 1


def test_begun_work_ends_when_its_owner_says_so_and_is_not_the_running_work() -> None:
    tracing = RecordedTracing()
    span, traceparent = Telemetry(tracing=tracing).begin(SpanName.PUSH, {Field.NODE: "n1"}, parent=PARENT)
    assert current_trace_context() == ""
    (recorded,) = tracing.spans
    assert (recorded.parent, recorded.traceparent, recorded.ends) == (PARENT, traceparent, 0)
    assert recorded.attributes == {"node": "n1"}
    span.end()
    assert recorded.ends == 1


def test_begun_work_passes_the_context_on_without_a_collector() -> None:
    span, traceparent = Telemetry().begin(SpanName.PUSH, parent=PARENT)
    span.end()
    assert traceparent == PARENT
    assert Telemetry().begin(SpanName.PUSH).traceparent == ""


def test_work_elsewhere_is_below_the_running_work_and_above_what_it_asks_for() -> None:
    tracing = RecordedTracing()
    telemetry = Telemetry(tracing=tracing)
    with telemetry.span(SpanName.INVOKE, parent=""), telemetry.reported_span(SpanName.SANDBOX) as sandbox:
        with telemetry.span(SpanName.HOST_CALL):
            pass
        sandbox.took(0.5)
    invoke, reported, host_call = tracing.spans
    assert reported.parent == invoke.traceparent
    assert host_call.parent == reported.traceparent
    assert (reported.took_s, reported.ends) == (0.5, 1)
    with Telemetry().reported_span(SpanName.SANDBOX) as nothing:
        nothing.took(0.5)
        assert current_trace_context() == ""


def test_work_is_continued_under_another_context_or_under_none() -> None:
    with continued(PARENT):
        assert current_trace_context() == PARENT
        with continued(""):
            assert trace_metadata() == ()
        assert current_trace_context() == PARENT
    assert current_trace_context() == ""


async def test_what_outlives_the_work_that_started_it_is_outside_of_its_trace() -> None:
    async def look() -> str:
        return current_trace_context()

    loop = asyncio.get_running_loop()
    with continued(PARENT):
        assert await loop.create_task(look()) == PARENT
        assert await loop.create_task(look(), context=outside_of_traces()) == ""
        assert current_trace_context() == PARENT


def test_the_span_that_an_application_is_in_is_continued() -> None:
    theirs = SpanContext(int(TRACE, 16), 0xB7AD6B7169203331, is_remote=False, trace_flags=TraceFlags(1))
    with trace.use_span(NonRecordingSpan(theirs)):
        assert trace_metadata() == (("traceparent", PARENT),)
        with continued(PARENT[:-2] + "00"):
            assert trace_metadata() == (("traceparent", PARENT[:-2] + "00"),)
    assert trace_metadata() == ()


@pytest.mark.parametrize(
    "sent",
    [
        None,
        "",
        b"bytes",
        PARENT + "-extra",
        PARENT.upper(),
        f"ff-{TRACE}-b7ad6b7169203331-01",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{TRACE}-{'0' * 16}-01",
        PARENT + "\n",
        "x" * 10_000,
    ],
)
def test_a_malformed_context_is_dropped(sent: Any) -> None:
    assert received_trace_context(sent) == ""


@given(st.text())
def test_only_what_is_well_formed_is_taken(text: str) -> None:
    assert received_trace_context(text) in {"", text}
    assert received_trace_context(PARENT) == PARENT


def test_metrics_are_counted_by_label() -> None:
    telemetry = Telemetry()
    telemetry.count(INVOCATIONS, "a/b@1.0.0", "")
    telemetry.count(INVOCATIONS, "a/b@1.0.0", "", amount=2)
    telemetry.count(INVOCATIONS, "a/b@1.0.0", "FUEL")
    telemetry.gauge(SUBSCRIBERS, 3)
    telemetry.gauge(SUBSCRIBERS, 2)
    telemetry.observe(PUSH_SECONDS, 0.003)
    telemetry.measure(RPC_SERVER_IN_FLIGHT, lambda: 5)
    telemetry.measure(RPC_SERVER_IN_FLIGHT, lambda: 6)
    text = telemetry.prometheus_text().decode()
    assert 'agentfactory_invocations_total{failure="",template="a/b@1.0.0"} 3.0' in text
    assert 'agentfactory_invocations_total{failure="FUEL",template="a/b@1.0.0"} 1.0' in text
    assert "agentfactory_subscribers 2.0" in text
    assert 'agentfactory_push_seconds_bucket{le="0.005"} 1.0' in text
    assert "agentfactory_rpc_server_in_flight 6.0" in text
    assert "process_resident_memory_bytes" in text


@pytest.mark.parametrize("service", list(ServiceName))
def test_a_service_has_its_metrics_from_the_start(service: ServiceName) -> None:
    text = start_telemetry(service_name=service, instance="x").prometheus_text().decode()
    shown = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE agentfactory_")}
    assert {name for name in shown if not name.endswith("_created")} == {
        metric.name for metric in METRICS if service in metric.services
    }


def test_every_metric_is_somewhere() -> None:
    assert all(metric.services for metric in METRICS)


def test_names_are_unique_and_end_in_their_unit() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert all(name.startswith("agentfactory_") for name in names)
    assert all(metric.name.endswith("_seconds") for metric in METRICS if metric.buckets)
