from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from service.status import UnavailableError
from service.telemetry import (
    INVOCATIONS,
    METRICS,
    PUSH_SECONDS,
    RPC_SERVER_IN_FLIGHT,
    SUBSCRIBERS,
    Attribute,
    Field,
    SpanName,
    Telemetry,
    current_trace_context,
    current_trace_id,
    received_trace_context,
    trace_metadata,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class Recorded:
    def __init__(self, name: str, attributes: Mapping[str, Attribute], parent: str) -> None:
        self.name, self.attributes, self.parent = name, dict(attributes), parent
        self.failure = ""
        self.ended = False

    def set(self, field: str, value: Attribute) -> None:
        self.attributes[field] = value

    def fail(self, reason: str) -> None:
        self.failure = reason

    def end(self) -> None:
        self.ended = True


class RecordedTracing:
    """A fake of `service.telemetry.Tracing` that keeps what it is told."""

    def __init__(self) -> None:
        self.spans: list[Recorded] = []
        self.registry: CollectorRegistry | None = None
        self.closed = False

    def start(self, name: str, attributes: Mapping[str, Attribute], *, parent: str) -> tuple[Recorded, str]:
        span = Recorded(name, attributes, parent)
        self.spans.append(span)
        return span, f"00-{TRACE}-{len(self.spans):016x}-01"

    def export_metrics(self, registry: CollectorRegistry) -> None:
        self.registry = registry

    def close(self) -> None:
        self.closed = True


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
    assert first.ended
    assert second.ended
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
    assert tracing.spans[0].ended


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


def test_names_are_unique_and_end_in_their_unit() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert all(name.startswith("agentfactory_") for name in names)
    assert all(metric.name.endswith("_seconds") for metric in METRICS if metric.buckets)
