"""The one module for telemetry: names of spans, metrics and log fields; trace context; nearly free when off.

Why metrics live in prometheus_client, and traces in OpenTelemetry only when an OTLP collector is configured: ADR 6.
Names are documented in docs/observability.md, which a test compares with this file.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from dataclasses import dataclass
from enum import StrEnum, unique
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol

from templates.reasons import AgentFactoryError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

TRACEPARENT_KEY: Final = "traceparent"

Attribute = str | int | float | bool


@unique
class SpanName(StrEnum):
    """Every span that a process of ours makes, from submission to sandbox."""

    RPC_SERVER = "agentfactory.rpc.server"
    CHANGE_SUBMIT = "agentfactory.change.submit"
    MODULE_INSPECT = "agentfactory.module.inspect"
    CHANGE_APPROVE = "agentfactory.change.approve"
    PUBLISH = "agentfactory.publish"
    PUSH = "agentfactory.push"
    UPDATE_VERIFY = "agentfactory.update.verify"
    UPDATE_STAGE = "agentfactory.update.stage"
    UPDATE_ACTIVATE = "agentfactory.update.activate"
    MODULE_COMPILE = "agentfactory.module.compile"
    INVOKE = "agentfactory.invoke"
    SANDBOX = "agentfactory.sandbox"
    HOST_CALL = "agentfactory.host_call"


@unique
class Field(StrEnum):
    """Names of fields in log lines and of attributes of spans: one fact, one name, everywhere."""

    AGENT = "agent"
    CODE = "code"
    COMPONENT = "component"
    DIGEST = "digest"
    ERROR = "error"
    FAILURE = "failure"
    FUEL = "fuel"
    GENERATION = "generation"
    HOST_CALL = "host_call"
    HOST_CALLS = "host_calls"
    INVOCATION = "invocation"
    METHOD = "method"
    NODE = "node"
    PEER = "peer"
    PID = "pid"
    PORT = "port"
    REASON = "reason"
    ROLE = "role"
    STAGE = "stage"
    TASK = "task"
    TEMPLATE = "template"
    TENANT = "tenant"
    TOOK_S = "took_s"
    TRACE_ID = "trace_id"
    WORKER = "worker"


_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricName:
    """One metric: its Prometheus name (unit included), what it says, its labels, and for histograms their buckets."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


RPC_SERVER_CALLS: Final = MetricName(
    name="agentfactory_rpc_server_calls_total",
    help="Calls answered, by method and gRPC code.",
    labels=("method", "code"),
)
RPC_SERVER_SECONDS: Final = MetricName(
    name="agentfactory_rpc_server_seconds", help="Time from call to answer.", labels=("method",), buckets=_SECONDS
)
RPC_SERVER_IN_FLIGHT: Final = MetricName(
    name="agentfactory_rpc_server_in_flight", help="Calls in progress, streams included."
)
CERTIFICATE_EXPIRES: Final = MetricName(
    name="agentfactory_certificate_expires_timestamp_seconds", help="When this process's own certificate runs out."
)
METADATA_EXPIRES: Final = MetricName(
    name="agentfactory_metadata_expires_timestamp_seconds", help="When a role's metadata runs out.", labels=("role",)
)
GENERATION: Final = MetricName(
    name="agentfactory_generation", help="Generation that is published (control plane) or active (node)."
)
CHANGES: Final = MetricName(
    name="agentfactory_changes_total", help="Changes that reached a final state.", labels=("state",)
)
PUBLICATIONS: Final = MetricName(name="agentfactory_publications_total", help="Generations that were published.")
SUBSCRIBERS: Final = MetricName(name="agentfactory_subscribers", help="Nodes with an open Subscribe stream.")
PUSHES: Final = MetricName(
    name="agentfactory_pushes_total", help="Updates that nodes answered, by stage or refusal.", labels=("stage",)
)
PUSH_SECONDS: Final = MetricName(
    name="agentfactory_push_seconds", help="Time from sending an update to a node's ACTIVE.", buckets=_SECONDS
)
UPDATES: Final = MetricName(
    name="agentfactory_updates_total",
    help="Updates that this node took or refused, by stage.",
    labels=("stage", "reason"),
)
INVOCATIONS: Final = MetricName(
    name="agentfactory_invocations_total",
    help="Invocations that ended, by template and kind of failure (empty: none).",
    labels=("template", "failure"),
)
INVOCATION_SECONDS: Final = MetricName(
    name="agentfactory_invocation_seconds",
    help="Time from admission to outcome.",
    labels=("template",),
    buckets=_SECONDS,
)
INVOCATION_FUEL: Final = MetricName(
    name="agentfactory_invocation_fuel_total", help="Fuel that guests burned.", labels=("template",)
)
INVOCATIONS_IN_FLIGHT: Final = MetricName(
    name="agentfactory_invocations_in_flight", help="Invocations admitted and not yet ended."
)
HOST_CALLS: Final = MetricName(
    name="agentfactory_host_calls_total", help="Host calls by interface and result.", labels=("interface", "result")
)
WORKERS: Final = MetricName(name="agentfactory_workers", help="Worker processes alive.")
WORKER_EXITS: Final = MetricName(
    name="agentfactory_worker_exits_total", help="Worker processes that ended, by cause.", labels=("cause",)
)
COMPILATIONS: Final = MetricName(
    name="agentfactory_compilations_total", help="Modules asked of the compile cache.", labels=("result",)
)
TASK_FAILURES: Final = MetricName(
    name="agentfactory_task_failures_total", help="Background tasks that failed.", labels=("task",)
)

METRICS: Final = tuple(value for value in list(globals().values()) if isinstance(value, MetricName))

_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_current: ContextVar[str] = ContextVar("trace_context", default="")


def current_trace_context() -> str:
    """Return the W3C traceparent of the running unit of work, or "": what goes into worker frames."""
    return _current.get()


def current_trace_id() -> str:
    """Return the 32 hexadecimal digits that join the log lines of one piece of work, or ""."""
    return _current.get()[3:35]


def trace_metadata() -> Sequence[tuple[str, str]]:
    """Return gRPC metadata that carries the current trace context; empty when there is none."""
    traceparent = _current.get()
    return ((TRACEPARENT_KEY, traceparent),) if traceparent else ()


def received_trace_context(traceparent: str | bytes | None) -> str:
    """Return ``traceparent`` if it is one (W3C Trace Context, section 3.2.2), otherwise "": strangers send anything."""
    if isinstance(traceparent, str) and _TRACEPARENT.fullmatch(traceparent):
        return traceparent
    return ""


class Span(Protocol):
    """A unit of work."""

    def set(self, field: str, value: Attribute) -> None:
        """Add a fact. No secrets, no input and no output of agents."""
        ...

    def fail(self, reason: str) -> None:
        """Mark the work as failed. An exception that leaves the ``with`` block does it too."""
        ...

    def end(self) -> None:
        """Called by the ``with`` block."""
        ...


class Tracing(Protocol):
    """Where spans go: OpenTelemetry, or a list in a test."""

    def start(self, name: str, attributes: Mapping[str, Attribute], *, parent: str) -> tuple[Span, str]:
        """Start a span below ``parent`` (a traceparent or ""); return it and its own traceparent."""
        ...

    def export_metrics(self, registry: "CollectorRegistry") -> None:
        """Begin to send what ``registry`` holds, now and then."""
        ...

    def close(self) -> None:
        """Send what is left."""
        ...


class _NoSpan:
    """Work that nobody traces; an incoming trace context is passed on all the same."""

    __slots__ = ("_parent", "_token")

    def __init__(self, parent: str) -> None:
        self._parent = parent
        self._token: Token[str] | None = None

    def __enter__(self) -> Span:
        if self._parent:
            self._token = _current.set(self._parent)
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if self._token is not None:
            _current.reset(self._token)
            self._token = None

    def set(self, field: str, value: Attribute) -> None:
        pass

    def fail(self, reason: str) -> None:
        pass

    def end(self) -> None:
        pass


_NO_SPAN: Final = _NoSpan("")


class _TracedSpan:
    __slots__ = ("_span", "_token", "_traceparent")

    def __init__(self, span: Span, traceparent: str) -> None:
        self._span = span
        self._traceparent = traceparent
        self._token: Token[str] | None = None

    def __enter__(self) -> Span:
        self._token = _current.set(self._traceparent)
        return self._span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            _current.reset(self._token)
        if isinstance(error, AgentFactoryError):
            self._span.fail(str(error.reason))
        elif kind is not None:
            self._span.fail(kind.__name__)  # never its text: it may hold a secret
        self._span.end()


class Telemetry:
    """Spans and metrics of one process. Build one in main, pass it down, close it last."""

    def __init__(self, *, tracing: Tracing | None = None) -> None:
        from prometheus_client import CollectorRegistry, ProcessCollector

        self.registry: CollectorRegistry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._tracing = tracing
        self._counters: dict[tuple[str, ...], Counter] = {}
        self._gauges: dict[tuple[str, ...], Gauge] = {}
        self._histograms: dict[tuple[str, ...], Histogram] = {}
        self._families: dict[str, Counter | Gauge | Histogram] = {}
        if tracing is not None:
            tracing.export_metrics(self.registry)

    @property
    def tracing(self) -> bool:
        """Whether spans go anywhere."""
        return self._tracing is not None

    def span(
        self, name: SpanName, attributes: Mapping[str, Attribute] | None = None, *, parent: str | None = None
    ) -> AbstractContextManager[Span]:
        """Measure a unit of work in a ``with`` block.

        Args:
            name: what is being done.
            attributes: facts known beforehand, by `Field`.
            parent: a traceparent that came from elsewhere; without it, the work that is running here.
        """
        if self._tracing is None:
            return _NoSpan(parent) if parent else _NO_SPAN
        span, traceparent = self._tracing.start(
            name, attributes or {}, parent=_current.get() if parent is None else parent
        )
        return _TracedSpan(span, traceparent)

    def count(self, metric: MetricName, *labels: str, amount: float = 1.0) -> None:
        """Add to a counter; ``labels`` in the order of ``metric.labels``."""
        key = (metric.name, *labels)
        child = self._counters.get(key)
        if child is None:
            from prometheus_client import Counter

            family = self._families.get(metric.name)
            if not isinstance(family, Counter):
                family = self._families[metric.name] = Counter(
                    metric.name, metric.help, metric.labels, registry=self.registry
                )
            child = self._counters[key] = family.labels(*labels) if labels else family
        child.inc(amount)

    def observe(self, metric: MetricName, value: float, *labels: str) -> None:
        """Add one value to a histogram; ``labels`` in the order of ``metric.labels``."""
        key = (metric.name, *labels)
        child = self._histograms.get(key)
        if child is None:
            from prometheus_client import Histogram

            family = self._families.get(metric.name)
            if not isinstance(family, Histogram):
                family = self._families[metric.name] = Histogram(
                    metric.name, metric.help, metric.labels, registry=self.registry, buckets=metric.buckets
                )
            child = self._histograms[key] = family.labels(*labels) if labels else family
        child.observe(value)

    def gauge(self, metric: MetricName, value: float, *labels: str) -> None:
        """Set a gauge; ``labels`` in the order of ``metric.labels``."""
        key = (metric.name, *labels)
        child = self._gauges.get(key)
        if child is None:
            from prometheus_client import Gauge

            family = self._families.get(metric.name)
            if not isinstance(family, Gauge):
                family = self._families[metric.name] = Gauge(
                    metric.name, metric.help, metric.labels, registry=self.registry
                )
            child = self._gauges[key] = family.labels(*labels) if labels else family
        child.set(value)

    def measure(self, metric: MetricName, read: Callable[[], float]) -> None:
        """Register a gauge without labels whose value is read when somebody looks; a later one takes its place."""
        from prometheus_client import Gauge

        family = self._families.get(metric.name)
        if not isinstance(family, Gauge):
            family = self._families[metric.name] = Gauge(metric.name, metric.help, registry=self.registry)
        family.set_function(read)

    def prometheus_text(self) -> bytes:
        """Return all metrics of this process in Prometheus text, for /metrics."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)

    def close(self) -> None:
        """Send what is left; call last. Blocks for some seconds at most when the collector does not answer."""
        if self._tracing is not None:
            self._tracing.close()


def start_telemetry(
    *, service_name: str, instance: str, otlp_endpoint: str | None = None, trace_ratio: float = 1.0
) -> Telemetry:
    """Return the telemetry of this process, exporting over OTLP/gRPC if there is a collector.

    Args:
        service_name: "agentfactory-node" or "agentfactory-control-plane".
        instance: which of them: the last part of its identity.
        otlp_endpoint: "https://host:4317", or "http://" on loopback.
        trace_ratio: share of traces begun here that are recorded; a caller's decision is followed.
    """
    if otlp_endpoint is None:
        return Telemetry()
    from service.otlp_export import OtlpTracing

    return Telemetry(
        tracing=OtlpTracing(
            service_name=service_name, instance=instance, endpoint=otlp_endpoint, trace_ratio=trace_ratio
        )
    )
