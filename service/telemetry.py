"""The one module for telemetry: names of spans, metrics and log fields; trace context; nearly free when off.

Why metrics live in prometheus_client, and traces in OpenTelemetry only when an OTLP collector is configured: ADR 6.
Names are documented in docs/observability.md, which a test compares with this file.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import Context, ContextVar, Token, copy_context
from enum import StrEnum, unique
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from service.metric_name import MetricName
from templates.reasons import AgentFactoryError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

TRACEPARENT_KEY: Final = "traceparent"

Attribute = str | int | float | bool


@unique
class ServiceName(StrEnum):
    """Which program reports: ``service.name`` at the collector."""

    CONTROL_PLANE = "agentfactory-control-plane"
    NODE = "agentfactory-node"
    AGENTCTL = "agentctl"


@unique
class SpanName(StrEnum):
    """Every span that a process of ours makes, from submission to sandbox."""

    COMMAND = "agentfactory.command"
    RPC_SERVER = "agentfactory.rpc.server"
    CHANGE_SUBMIT = "agentfactory.change.submit"
    MODULE_INSPECT = "agentfactory.module.inspect"
    CHANGE_APPROVE = "agentfactory.change.approve"
    PUBLISH = "agentfactory.publish"
    PUSH = "agentfactory.push"
    UPDATE = "agentfactory.update"
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
    COMMAND = "command"
    COMPONENT = "component"
    DIGEST = "digest"
    ERROR = "error"
    EXIT_CODE = "exit_code"
    FAILURE = "failure"
    FUEL = "fuel"
    GENERATION = "generation"
    GUEST_S = "guest_s"
    HOST_CALL = "host_call"
    HOST_CALL_S = "host_call_s"
    HOST_CALLS = "host_calls"
    INVOCATION = "invocation"
    METHOD = "method"
    NODE = "node"
    PEER = "peer"
    ISOLATION = "isolation"
    PID = "pid"
    PORT = "port"
    QUEUED_S = "queued_s"
    REASON = "reason"
    ROLE = "role"
    STAGE = "stage"
    TASK = "task"
    TEMPLATE = "template"
    TENANT = "tenant"
    TOOK_S = "took_s"
    TRACE_ID = "trace_id"
    WORKERS = "workers"
    WORKER = "worker"


_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)


_BOTH: Final = frozenset({ServiceName.CONTROL_PLANE, ServiceName.NODE})
_CONTROL_PLANE: Final = frozenset({ServiceName.CONTROL_PLANE})
_NODE: Final = frozenset({ServiceName.NODE})

RPC_SERVER_CALLS: Final = MetricName(
    name="agentfactory_rpc_server_calls_total",
    help="Calls answered, by method and gRPC code.",
    labels=("method", "code"),
    services=_BOTH,
)
RPC_SERVER_SECONDS: Final = MetricName(
    name="agentfactory_rpc_server_seconds",
    help="Time from call to answer.",
    labels=("method",),
    buckets=_SECONDS,
    services=_BOTH,
)
RPC_SERVER_IN_FLIGHT: Final = MetricName(
    name="agentfactory_rpc_server_in_flight", help="Calls in progress, streams included.", services=_BOTH
)
CERTIFICATE_EXPIRES: Final = MetricName(
    name="agentfactory_certificate_expires_timestamp_seconds",
    help="When this process's own certificate runs out.",
    services=_BOTH,
)
METADATA_EXPIRES: Final = MetricName(
    name="agentfactory_metadata_expires_timestamp_seconds",
    help="When a role's metadata runs out.",
    labels=("role",),
    services=_BOTH,
)
GENERATION: Final = MetricName(
    name="agentfactory_generation",
    help="Generation that is published (control plane) or active (node).",
    services=_BOTH,
)
CHANGES: Final = MetricName(
    name="agentfactory_changes_total",
    help="Changes that reached a final state.",
    labels=("state",),
    services=_CONTROL_PLANE,
)
PUBLICATIONS: Final = MetricName(
    name="agentfactory_publications_total", help="Generations that were published.", services=_CONTROL_PLANE
)
POLICY_DECISIONS: Final = MetricName(
    name="agentfactory_policy_decisions_total",
    help="Answers of the admission policies.",
    labels=("action", "decision"),
    services=_CONTROL_PLANE,
)
BREAK_GLASS: Final = MetricName(
    name="agentfactory_break_glass_total", help="Alert on it.", labels=("event",), services=_CONTROL_PLANE
)
SUBSCRIBERS: Final = MetricName(
    name="agentfactory_subscribers", help="Nodes with an open Subscribe stream.", services=_CONTROL_PLANE
)
PUSHES: Final = MetricName(
    name="agentfactory_pushes_total",
    help="Updates that nodes answered, by stage or refusal.",
    labels=("stage",),
    services=_CONTROL_PLANE,
)
PUSH_SECONDS: Final = MetricName(
    name="agentfactory_push_seconds",
    help="Time from sending an update to a node's ACTIVE.",
    buckets=_SECONDS,
    services=_CONTROL_PLANE,
)
AUDIT_FAILURES: Final = MetricName(
    name="agentfactory_audit_failures_total", help="Refusals that could not be recorded.", services=_CONTROL_PLANE
)
AUDIT_CHECKPOINT: Final = MetricName(
    name="agentfactory_audit_checkpoint", help="Newest signed entry of the audit log.", services=_CONTROL_PLANE
)
AUDIT_FORKS: Final = MetricName(
    name="agentfactory_audit_forks", help="Nodes that saw another audit log than this one.", services=_CONTROL_PLANE
)
UPDATES: Final = MetricName(
    name="agentfactory_updates_total",
    help="Updates that this node took or refused, by stage.",
    labels=("stage", "reason"),
    services=_NODE,
)
INVOCATIONS: Final = MetricName(
    name="agentfactory_invocations_total",
    help="Invocations that ended, by template and kind of failure (empty: none).",
    labels=("template", "failure"),
    services=_NODE,
)
INVOCATION_SECONDS: Final = MetricName(
    name="agentfactory_invocation_seconds",
    help="Time from admission to outcome.",
    labels=("template",),
    buckets=_SECONDS,
    services=_NODE,
)
INVOCATION_FUEL: Final = MetricName(
    name="agentfactory_invocation_fuel_total", help="Fuel that guests burned.", labels=("template",), services=_NODE
)
INVOCATIONS_IN_FLIGHT: Final = MetricName(
    name="agentfactory_invocations_in_flight", help="Invocations admitted and not yet ended.", services=_NODE
)
HOST_CALLS: Final = MetricName(
    name="agentfactory_host_calls_total",
    help="Host calls by interface and result: ok or the kind of refusal.",
    labels=("interface", "result"),
    services=_NODE,
)
LLM_CALLS: Final = MetricName(
    name="agentfactory_llm_calls_total",
    help="Calls of language models by binding and result: ok, cached, cancelled or the kind of refusal.",
    labels=("binding", "result"),
    services=_NODE,
)
LLM_TOKENS: Final = MetricName(
    name="agentfactory_llm_tokens_total",
    help="Tokens of input and output that were charged.",
    labels=("binding",),
    services=_NODE,
)
LLM_COST: Final = MetricName(
    name="agentfactory_llm_cost_usd_total",
    help="What they cost by the operator's prices.",
    labels=("binding",),
    services=_NODE,
)
HTTP_REQUESTS: Final = MetricName(
    name="agentfactory_http_requests_total",
    help="Requests of agents to the outside, by class of status or kind of refusal.",
    labels=("result",),
    services=_NODE,
)
HTTP_BYTES: Final = MetricName(
    name="agentfactory_http_bytes_total",
    help="Bytes of HTTP that agents sent and received.",
    labels=("direction",),
    services=_NODE,
)
RECORDINGS: Final = MetricName(
    name="agentfactory_recordings_total",
    help="Recordings: written, lost (the store failed), refused, deleted (by a caller), dropped (age, room).",
    labels=("result",),
    services=_NODE,
)
RECORDING_BYTES: Final = MetricName(
    name="agentfactory_recording_bytes_total", help="Bytes of recordings that were written.", services=_NODE
)
RECORDINGS_KEPT_BYTES: Final = MetricName(
    name="agentfactory_recordings_kept_bytes", help="Bytes of the recordings that are kept.", services=_NODE
)
WORKERS: Final = MetricName(name="agentfactory_workers", help="Worker processes alive.", services=_NODE)
ISOLATION_LEVEL: Final = MetricName(
    name="agentfactory_isolation_level",
    help="How far workers are isolated: 1 rlimits-only, 2 landlock+seccomp, 3 full; 0 while it is unknown.",
    services=_NODE,
)
WORKER_EXITS: Final = MetricName(
    name="agentfactory_worker_exits_total",
    help="Worker processes that ended, by cause.",
    labels=("cause",),
    services=_NODE,
)
COMPILATIONS: Final = MetricName(
    name="agentfactory_compilations_total",
    help="Modules asked of the compile cache.",
    labels=("result",),
    services=_NODE,
)
TASK_FAILURES: Final = MetricName(
    name="agentfactory_task_failures_total", help="Background tasks that failed.", labels=("task",), services=_BOTH
)

METRICS: Final = tuple(value for value in list(globals().values()) if isinstance(value, MetricName))

_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_current: ContextVar[str] = ContextVar("trace_context", default="")


def current_trace_context() -> str:
    """Return the W3C traceparent of the running unit of work, or "": what goes into frames and messages."""
    return _current.get()


def current_trace_id() -> str:
    """Return the 32 hexadecimal digits that join the log lines of one piece of work, or ""."""
    return _current.get()[3:35]


def outside_of_traces() -> Context:
    """Return the present context without its trace: for tasks that outlive the work which happened to start them."""
    context = copy_context()
    context.run(_current.set, "")
    return context


@contextmanager
def continued(traceparent: str) -> Iterator[None]:
    """Let the work in the ``with`` block belong to this trace context ("": to none), without a span of its own."""
    token = _current.set(traceparent)
    try:
        yield
    finally:
        _current.reset(token)


def trace_metadata() -> Sequence[tuple[str, str]]:
    """Return gRPC metadata that carries the current trace context; empty when there is none.

    In a program that uses OpenTelemetry itself, the client library continues the span that the program is in.
    """
    traceparent = _current.get() or _application_context()
    return ((TRACEPARENT_KEY, traceparent),) if traceparent else ()


def _application_context() -> str:
    """Return the context of the application's current span; nothing is imported to find out that there is none."""
    api: Any = sys.modules.get("opentelemetry.trace")
    if api is None:
        return ""
    span = api.get_current_span().get_span_context()
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}" if span.is_valid else ""


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
        """Called by the ``with`` block; by the owner of work that was begun with `Telemetry.begin`."""
        ...


class ReportedSpan(Span, Protocol):
    """Work that another process does and times."""

    def took(self, seconds: float) -> None:
        """Say how long it took, by that process's account. It ends with the block, and begins so much earlier."""
        ...


class Begun(NamedTuple):
    """Work that does not end where it begins."""

    span: Span
    traceparent: str


class Tracing(Protocol):
    """Where spans go: OpenTelemetry, or a list in a test."""

    def start(self, name: str, attributes: Mapping[str, Attribute], *, parent: str) -> tuple[ReportedSpan, str]:
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

    def __enter__(self) -> ReportedSpan:
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

    def took(self, seconds: float) -> None:
        pass


NO_SPAN: Final = _NoSpan("")
"""Stands where nothing is recorded."""
NOT_BEGUN: Final = Begun(NO_SPAN, "")
"""Stands where no work is under way; it may be ended."""


class _TracedSpan:
    __slots__ = ("_span", "_token", "_traceparent")

    def __init__(self, span: ReportedSpan, traceparent: str) -> None:
        self._span = span
        self._traceparent = traceparent
        self._token: Token[str] | None = None

    def __enter__(self) -> ReportedSpan:
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

    def __init__(self, *, tracing: Tracing | None = None, service: ServiceName | None = None) -> None:
        """``service`` chooses the metrics that are there from the start; others appear when they are first used."""
        from prometheus_client import CollectorRegistry, ProcessCollector

        self.registry: CollectorRegistry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._tracing = tracing
        self._families: dict[str, Counter | Gauge | Histogram] = {}
        self._counters: dict[tuple[str, ...], Counter] = {}
        self._gauges: dict[tuple[str, ...], Gauge] = {}
        self._histograms: dict[tuple[str, ...], Histogram] = {}
        for metric in METRICS:
            if service in metric.services:
                self._family(metric)
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
            return _NoSpan(parent) if parent else NO_SPAN
        span, traceparent = self._tracing.start(
            name, attributes or {}, parent=_current.get() if parent is None else parent
        )
        return _TracedSpan(span, traceparent)

    def begin(self, name: SpanName, attributes: Mapping[str, Attribute] | None = None, *, parent: str = "") -> Begun:
        """Begin work that ends elsewhere, in another callback or task; whoever learns of its end calls ``span.end()``.

        It does not become the running work; hand its ``traceparent`` on to what belongs to it.
        """
        if self._tracing is None:
            return Begun(NO_SPAN, parent)
        return Begun(*self._tracing.start(name, attributes or {}, parent=parent))

    def reported_span(self, name: SpanName) -> AbstractContextManager[ReportedSpan]:
        """Measure work that another process does while this one waits in the ``with`` block."""
        if self._tracing is None:
            return NO_SPAN
        return _TracedSpan(*self._tracing.start(name, {}, parent=_current.get()))

    def count(self, metric: MetricName, *labels: str, amount: float = 1.0) -> None:
        """Add to a counter; ``labels`` in the order of ``metric.labels``."""
        key = (metric.name, *labels)
        child = self._counters.get(key)
        if child is None:
            child = self._counters[key] = self._child(metric, labels)
        child.inc(amount)

    def observe(self, metric: MetricName, value: float, *labels: str) -> None:
        """Add one value to a histogram; ``labels`` in the order of ``metric.labels``."""
        key = (metric.name, *labels)
        child = self._histograms.get(key)
        if child is None:
            child = self._histograms[key] = self._child(metric, labels)
        child.observe(value)

    def gauge(self, metric: MetricName, value: float, *labels: str) -> None:
        """Set a gauge; ``labels`` in the order of ``metric.labels``."""
        key = (metric.name, *labels)
        child = self._gauges.get(key)
        if child is None:
            child = self._gauges[key] = self._child(metric, labels)
        child.set(value)

    def measure(self, metric: MetricName, read: Callable[[], float]) -> None:
        """Register a gauge without labels whose value is read when somebody looks; a later one takes its place."""
        self._child(metric, ()).set_function(read)

    def _child(self, metric: MetricName, labels: tuple[str, ...]) -> Any:
        family = self._family(metric)
        return family.labels(*labels) if labels else family

    def _family(self, metric: MetricName) -> "Counter | Gauge | Histogram":
        from prometheus_client import Counter, Gauge, Histogram

        family = self._families.get(metric.name)
        if family is None:
            named = (metric.name, metric.help, metric.labels)
            if metric.buckets:
                family = Histogram(*named, registry=self.registry, buckets=metric.buckets)
            elif metric.name.endswith("_total"):
                family = Counter(*named, registry=self.registry)
            else:
                family = Gauge(*named, registry=self.registry)
            self._families[metric.name] = family
        return family

    def prometheus_text(self) -> bytes:
        """Return all metrics of this process in Prometheus text, for /metrics."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)

    def close(self) -> None:
        """Send what is left; call last. Blocks for some seconds at most when the collector does not answer."""
        if self._tracing is not None:
            self._tracing.close()


def start_telemetry(
    *,
    service_name: ServiceName,
    instance: str,
    otlp_endpoint: str | None = None,
    trace_ratio: float = 1.0,
    brief: bool = False,
) -> Telemetry:
    """Return the telemetry of this process, exporting over OTLP/gRPC if there is a collector.

    Args:
        service_name: which program this is.
        instance: which of them: the last part of its identity.
        otlp_endpoint: "https://host:4317", or "http://" on loopback.
        trace_ratio: share of traces begun here that are recorded; a caller's decision is followed.
        brief: for a command: no metrics, and little patience with a collector that does not answer.

    Raises:
        AgentFactoryError: ``otlp_endpoint`` is no such address.
    """
    if otlp_endpoint is None:
        return Telemetry(service=service_name)
    from service.otlp_export import OtlpTracing

    tracing = OtlpTracing(
        service_name=service_name,
        instance=instance,
        endpoint=otlp_endpoint,
        trace_ratio=trace_ratio,
        brief=brief,
    )
    return Telemetry(tracing=tracing, service=service_name)
