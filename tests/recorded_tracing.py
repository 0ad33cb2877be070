"""Spans in a list: what `service.telemetry.Tracing` is in tests that need no collector."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry

from service.telemetry import Attribute

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class RecordedSpan:
    def __init__(self, name: str, attributes: Mapping[str, Attribute], *, parent: str, traceparent: str) -> None:
        self.name, self.attributes = name, dict(attributes)
        self.parent, self.traceparent = parent, traceparent
        self.failure = ""
        self.took_s: float | None = None
        self.ends = 0

    def set(self, field: str, value: Attribute) -> None:
        self.attributes[field] = value

    def fail(self, reason: str) -> None:
        self.failure = reason

    def took(self, seconds: float) -> None:
        self.took_s = seconds

    def end(self) -> None:
        self.ends += 1


class RecordedTracing:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.spans: list[RecordedSpan] = []
        self.registry: CollectorRegistry | None = None
        self.closed = False

    def start(self, name: str, attributes: Mapping[str, Attribute], *, parent: str) -> tuple[RecordedSpan, str]:
        traceparent = f"00-{parent[3:35] or TRACE}-{len(self.spans) + 1:016x}-01"
        span = RecordedSpan(name, attributes, parent=parent, traceparent=traceparent)
        self.spans.append(span)
        return span, traceparent

    def named(self, name: str) -> list[RecordedSpan]:
        return [span for span in self.spans if span.name == name]

    def export_metrics(self, registry: CollectorRegistry) -> None:
        self.registry = registry

    def close(self) -> None:
        self.closed = True
