"""What a metric is called; the names themselves stand in `service.telemetry`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricName:
    """One metric: its Prometheus name (unit included), what it says, its labels, and for histograms their buckets.

    ``services`` have it from their start on, whether or not there was anything to count yet. The name says what it is:
    ``_total`` is a counter; with ``buckets`` it is a histogram, and a gauge otherwise.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    services: frozenset[str]
