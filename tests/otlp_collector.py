"""A collector that takes OTLP over gRPC, as any real one does, and keeps what it is sent."""

from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

Value = str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedSpan:
    """One span; ids in hexadecimal, times in nanoseconds since the epoch."""

    service: str
    instance: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Value]
    failed: bool
    message: str

    @property
    def took_s(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9

    def contains(self, other: "CollectedSpan") -> bool:
        """Whether ``other`` happened within this span."""
        return self.start_ns <= other.start_ns and other.end_ns <= self.end_ns


@dataclass(slots=True)
class Collected:
    """Everything that came so far; metrics are the newest by service and OTLP name (a counter's lacks ``_total``)."""

    endpoint: str = ""
    spans: list[CollectedSpan] = field(default_factory=list)
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    metadata: list[Mapping[str, str | bytes]] = field(default_factory=list)

    def named(self, name: str, **attributes: Value) -> list[CollectedSpan]:
        """Return the spans of this name with at least these attributes, in the order in which they began."""
        wanted = attributes.items()
        found = [each for each in self.spans if each.name == name and wanted <= each.attributes.items()]
        return sorted(found, key=lambda each: each.start_ns)

    def one(self, name: str, **attributes: Value) -> CollectedSpan:
        """Return the only such span."""
        found = self.named(name, **attributes)
        if len(found) != 1:
            raise AssertionError(f"expected one {name} {attributes}, got {found}")
        return found[0]

    def parent(self, span: CollectedSpan) -> CollectedSpan | None:
        """Return the span above, None where a trace begins, or where its parent was made by somebody else."""
        return next((each for each in self.spans if each.span_id == span.parent_id), None)

    def path(self, span: CollectedSpan) -> list[str]:
        """Return the names from the top of the trace down to ``span``."""
        above = self.parent(span)
        return [*(self.path(above) if above else ()), span.name]

    def below(self, span: CollectedSpan) -> list[CollectedSpan]:
        """Return the children of ``span`` in the order in which they began."""
        found = [each for each in self.spans if each.parent_id == span.span_id]
        return sorted(found, key=lambda each: each.start_ns)


class _Collector(trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, collected: Collected) -> None:
        self._collected = collected

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 -- grpc's name
        self._collected.metadata.append(dict(context.invocation_metadata()))
        if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
            for resource in request.resource_spans:
                facts = _values(resource.resource.attributes)
                for scope in resource.scope_spans:
                    self._collected.spans += [_span(each, facts) for each in scope.spans]
            return trace_service_pb2.ExportTraceServiceResponse()
        for resource in request.resource_metrics:
            service = str(_values(resource.resource.attributes)["service.name"])
            for scope in resource.scope_metrics:
                known = self._collected.metrics.setdefault(service, {})
                known.update({metric.name: metric for metric in scope.metrics})
        return metrics_service_pb2.ExportMetricsServiceResponse()


def _span(span: Any, resource: Mapping[str, Value]) -> CollectedSpan:
    return CollectedSpan(
        service=str(resource["service.name"]),
        instance=str(resource["service.instance.id"]),
        name=span.name,
        kind=type(span).SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_values(span.attributes),
        failed=span.status.code == type(span.status).STATUS_CODE_ERROR,
        message=span.status.message,
    )


def _values(attributes: Any) -> dict[str, Value]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


def points(metric: Any) -> dict[tuple[tuple[str, Value], ...], Any]:
    """Return the data points of a sum, gauge or histogram by their sorted labels."""
    data = getattr(metric, metric.WhichOneof("data")).data_points
    return {tuple(sorted(_values(each.attributes).items())): each for each in data}


@contextmanager
def collecting(credentials: grpc.ServerCredentials | None = None) -> Iterator[Collected]:
    """Run a collector on a free port of loopback."""
    collected = Collected()
    collector = _Collector(collected)
    server = grpc.server(futures.ThreadPoolExecutor(4))
    add_trace: Callable[..., None] = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add_metrics: Callable[..., None] = metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server
    add_trace(collector, server)
    add_metrics(collector, server)
    if credentials is None:
        collected.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    else:
        collected.endpoint = f"https://localhost:{server.add_secure_port('127.0.0.1:0', credentials)}"
    server.start()
    try:
        yield collected
    finally:
        server.stop(None).wait()
