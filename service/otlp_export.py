"""OpenTelemetry over OTLP/gRPC, imported only when a collector is configured: spans, and the registry's metrics."""

import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as PrometheusFamily
from prometheus_client.samples import Sample

from service.telemetry import NO_SPAN, Attribute, ReportedSpan, SpanName
from templates.reasons import AgentFactoryError, Reason

EXPORT_TIMEOUT_S: Final = 5
BRIEF_TIMEOUT_S: Final = 1
METRICS_PERIOD_S: Final = 15.0

_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_SCOPE: Final = InstrumentationScope("agentfactory")
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_UNSET: Final = Status(StatusCode.UNSET)
_RATIO_IDS: Final = 1 << 64
"""A trace is chosen by the low half of its id, as OpenTelemetry's TraceIdRatioBased does: all processes agree."""
_KINDS: Final[Mapping[str, SpanKind]] = {
    SpanName.COMMAND: SpanKind.CLIENT,
    SpanName.RPC_SERVER: SpanKind.SERVER,
    SpanName.PUSH: SpanKind.PRODUCER,
    SpanName.UPDATE: SpanKind.CONSUMER,
}
"""From these a collector draws which service talks to which; every other span is internal."""

_LabelKey = tuple[tuple[str, str], ...]


class OtlpEndpointError(AgentFactoryError):
    """The collector's address is none, or would send telemetry over a network in the clear."""

    reason = Reason.INVALID_SETTINGS


def checked_endpoint(endpoint: str) -> str:
    """Return ``endpoint`` if it is "https://host:port", or "http://" on this machine.

    Raises:
        OtlpEndpointError: anything else.
    """
    parts = urlsplit(endpoint)
    if parts.scheme == "https" and parts.hostname:
        return endpoint
    if parts.scheme == "http" and parts.hostname in _LOOPBACK:
        return endpoint
    raise OtlpEndpointError(f"expected a collector at https://host:port, or http:// on loopback, got {endpoint!r}")


class OtlpTracing:
    """Implements `service.telemetry.Tracing`. Its threads are the exporters'; none of ours waits for the collector."""

    def __init__(
        self,
        *,
        service_name: str,
        instance: str,
        endpoint: str,
        trace_ratio: float,
        brief: bool = False,
        span_exporter: SpanExporter | None = None,
        metric_exporter: MetricExporter | None = None,
    ) -> None:
        insecure = urlsplit(checked_endpoint(endpoint)).scheme == "http"
        self._resource = Resource({"service.name": service_name, "service.instance.id": instance})
        self._sampled_below = round(trace_ratio * _RATIO_IDS)
        self._processor = BatchSpanProcessor(
            span_exporter
            or OTLPSpanExporter(
                endpoint=endpoint, insecure=insecure, timeout=BRIEF_TIMEOUT_S if brief else EXPORT_TIMEOUT_S
            )
        )
        self._metric_exporter: MetricExporter | None = None
        if not brief:
            self._metric_exporter = metric_exporter or OTLPMetricExporter(
                endpoint=endpoint, insecure=insecure, timeout=EXPORT_TIMEOUT_S
            )
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, name: str, attributes: Mapping[str, Attribute], *, parent: str) -> tuple[ReportedSpan, str]:
        """See `service.telemetry.Tracing`. Below what was not sampled nothing is, and it costs nothing to find out."""
        if parent:
            above = _span_context(parent)
            if not above.trace_flags.sampled:
                return NO_SPAN, parent
            trace_id = above.trace_id
        else:
            above = None
            trace_id = secrets.randbits(128) or 1
            if trace_id % _RATIO_IDS >= self._sampled_below:
                return NO_SPAN, f"00-{trace_id:032x}-{secrets.randbits(64) or 1:016x}-00"
        context = SpanContext(trace_id, secrets.randbits(64) or 1, is_remote=False, trace_flags=_SAMPLED)
        span = OtlpSpan(name, dict(attributes), context, above, resource=self._resource, processor=self._processor)
        return span, f"00-{trace_id:032x}-{context.span_id:016x}-01"

    def export_metrics(self, registry: CollectorRegistry) -> None:
        """See `service.telemetry.Tracing`: a thread sends ``registry`` every ``METRICS_PERIOD_S``."""
        exporter = self._metric_exporter
        if exporter is None:
            return

        def work() -> None:
            last = False
            while not last:
                last = self._stop.wait(METRICS_PERIOD_S)
                data = metrics_data(registry.collect(), resource=self._resource, now_ns=time.time_ns())
                exporter.export(data, timeout_millis=EXPORT_TIMEOUT_S * 1000)

        self._thread = threading.Thread(target=work, name="otlp-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """See `service.telemetry.Tracing`."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * EXPORT_TIMEOUT_S)
        if self._metric_exporter is not None:
            self._metric_exporter.shutdown(timeout_millis=EXPORT_TIMEOUT_S * 1000)
        self._processor.shutdown()  # type: ignore[no-untyped-call]


class OtlpSpan:
    """Implements `service.telemetry.ReportedSpan`.

    OpenTelemetry's own spans are not used: they cost three times as much, and cannot be as long as somebody else says.
    """

    __slots__ = (
        "_above",
        "_attributes",
        "_begun_ns",
        "_context",
        "_name",
        "_processor",
        "_resource",
        "_status",
        "_took_s",
    )

    def __init__(
        self,
        name: str,
        attributes: dict[str, Attribute],
        context: SpanContext,
        above: SpanContext | None,
        *,
        resource: Resource,
        processor: SpanProcessor,
    ) -> None:
        self._name = name
        self._attributes = attributes
        self._context = context
        self._above = above
        self._resource = resource
        self._processor = processor
        self._status = _UNSET
        self._took_s: float | None = None
        self._begun_ns = time.time_ns()

    def set(self, field: str, value: Attribute) -> None:
        self._attributes[field] = value

    def fail(self, reason: str) -> None:
        self._status = Status(StatusCode.ERROR, reason)

    def took(self, seconds: float) -> None:
        self._took_s = seconds

    def end(self) -> None:
        now_ns = time.time_ns()
        begun_ns = self._begun_ns
        if self._took_s is not None:
            # Not before it was started here, whatever the other process says, and however the clock was set meanwhile.
            begun_ns = min(now_ns, max(begun_ns, now_ns - int(self._took_s * 1e9)))
        self._processor.on_end(
            ReadableSpan(
                name=self._name,
                context=self._context,
                parent=self._above,
                resource=self._resource,
                attributes=self._attributes,
                kind=_KINDS.get(self._name, SpanKind.INTERNAL),
                instrumentation_scope=_SCOPE,
                status=self._status,
                start_time=begun_ns,
                end_time=now_ns,
            )
        )


def _span_context(traceparent: str) -> SpanContext:
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


def metrics_data(families: Iterable[PrometheusFamily], *, resource: Resource, now_ns: int) -> MetricsData:
    """Return Prometheus families as OpenTelemetry data: cumulative sums, gauges, explicit-bucket histograms."""
    metrics = [metric for family in families if (metric := _metric(family, now_ns)) is not None]
    scope = ScopeMetrics(scope=_SCOPE, metrics=metrics, schema_url="")
    return MetricsData(resource_metrics=[ResourceMetrics(resource=resource, scope_metrics=[scope], schema_url="")])


def _metric(family: PrometheusFamily, now_ns: int) -> Metric | None:
    match family.type:
        case "counter":
            started = _started(family.samples)
            points = [
                _number(each, started.get(_key(each)), now_ns)
                for each in family.samples
                if each.name.endswith("_total")
            ]
            data: Sum | Gauge | Histogram = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True)
        case "gauge":
            data = Gauge([_number(each, None, now_ns) for each in family.samples])
        case "histogram":
            data = Histogram(list(_histogram_points(family.samples, now_ns)), AggregationTemporality.CUMULATIVE)
        case _:
            return None
    return Metric(name=family.name, description=family.documentation, unit=family.unit, data=data)


def _key(sample: Sample) -> _LabelKey:
    return tuple(sorted((name, value) for name, value in sample.labels.items() if name != "le"))


def _started(samples: Iterable[Sample]) -> dict[_LabelKey, int]:
    return {_key(each): int(each.value * 1e9) for each in samples if each.name.endswith("_created")}


def _number(sample: Sample, started_ns: int | None, now_ns: int) -> NumberDataPoint:
    return NumberDataPoint(
        attributes=dict(sample.labels),
        start_time_unix_nano=now_ns if started_ns is None else started_ns,
        time_unix_nano=now_ns,
        value=sample.value,
    )


def _histogram_points(samples: Sequence[Sample], now_ns: int) -> Iterator[HistogramDataPoint]:
    started = _started(samples)
    buckets: dict[_LabelKey, list[tuple[float, float]]] = {}
    sums: dict[_LabelKey, float] = {}
    for each in samples:
        if each.name.endswith("_bucket"):
            buckets.setdefault(_key(each), []).append((float(each.labels["le"]), each.value))
        elif each.name.endswith("_sum"):
            sums[_key(each)] = each.value
    for key, cumulative in buckets.items():
        counts = [int(count) for _, count in cumulative]
        yield HistogramDataPoint(
            attributes=dict(key),
            start_time_unix_nano=started.get(key, now_ns),
            time_unix_nano=now_ns,
            count=counts[-1],
            sum=sums[key],
            bucket_counts=[count - before for before, count in pairwise([0, *counts])],
            explicit_bounds=[bound for bound, _ in cumulative[:-1]],  # the last one is infinity
            min=None,  # type: ignore[arg-type]  # optional in the protocol; Prometheus does not keep it
            max=None,  # type: ignore[arg-type]
        )
