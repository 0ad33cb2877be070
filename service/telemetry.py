"""The one module for telemetry: names of spans, metrics and log fields; trace context; free when nothing is configured."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Final


@unique
class SpanName(StrEnum):
    """Every span that we make."""

    RPC_SERVER = "agentfactory.rpc.server"
    RPC_CLIENT = "agentfactory.rpc.client"


@unique
class Field(StrEnum):
    """Names of fields in log lines and attributes of spans, the same everywhere."""

    METHOD = "method"


TRACEPARENT_KEY: Final = "traceparent"

type_Attribute = str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricName:
    """One metric: its Prometheus name (unit included), what it says, its labels, and for histograms their buckets."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


class Span:
    """A unit of work. All methods do nothing when tracing is off."""

    def set(self, field: str, value: str | float) -> None:
        raise NotImplementedError

    def fail(self, reason: str) -> None:
        raise NotImplementedError


class Telemetry:
    """Spans and metrics of one process. Build one in main and pass it down."""

    def __init__(self, *, service_name: str, instance: str = "", otlp_endpoint: str | None = None) -> None:
        raise NotImplementedError

    @contextmanager
    def span(
        self, name: SpanName, attributes: Mapping[str, str | float] | None = None, *, parent: str | None = None
    ) -> Iterator[Span]:
        """Measure a unit of work; ``parent`` is a traceparent that came from elsewhere, otherwise the current one."""
        raise NotImplementedError

    def count(self, metric: MetricName, amount: float = 1.0, *labels: str) -> None:
        raise NotImplementedError

    def observe(self, metric: MetricName, value: float, *labels: str) -> None:
        raise NotImplementedError

    def gauge(self, metric: MetricName, value: float, *labels: str) -> None:
        raise NotImplementedError

    def prometheus_text(self) -> bytes:
        """Return all metrics of this process in Prometheus text, for /metrics."""
        raise NotImplementedError

    def close(self) -> None:
        """Send what is left; call last."""
        raise NotImplementedError


def current_trace_context() -> str:
    """Return the W3C traceparent of the running unit of work, or "": what goes into worker frames."""
    raise NotImplementedError


def trace_metadata() -> Sequence[tuple[str, str]]:
    """Return gRPC metadata that carries the current trace context; empty when there is none."""
    raise NotImplementedError
