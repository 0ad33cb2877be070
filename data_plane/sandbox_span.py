"""What a trace is told about an invocation's time in its worker."""

from sandbox.outcome import Outcome
from service.telemetry import Field, ReportedSpan


def describe_sandbox(span: ReportedSpan, outcome: Outcome, *, elapsed_s: float, host_call_s: float) -> None:
    """Tell the trace what the worker reported; a worker that died reported nothing, and the span is what we waited."""
    usage = outcome.usage
    guest_s = usage.guest_us / 1e6
    if usage.wall_us:
        span.took(usage.wall_us / 1e6)
    span.set(Field.GUEST_S, guest_s)
    span.set(Field.HOST_CALL_S, host_call_s)
    span.set(Field.QUEUED_S, max(0.0, elapsed_s - guest_s - host_call_s))
    span.set(Field.FUEL, usage.fuel)
    span.set(Field.HOST_CALLS, usage.host_calls)
    if outcome.failure is not None:
        span.fail(outcome.failure.kind)
