"""What a supervisor believes of the outcome that a worker reports: whoever took the worker over wrote all of it.

Receipts, budgets, admission and people's terminals go by these numbers and texts. More than the limits allow is a
broken protocol; times, which a busy machine stretches, are cut to what is possible; texts are made harmless again.
"""

from dataclasses import replace
from typing import Final

from sandbox.frames import FrameError
from sandbox.limits import SandboxLimits
from sandbox.outcome import Failure, LogLine, Outcome, printable

LEVELS: Final = frozenset({"debug", "info", "warning", "error"})
LATE_US_MAX: Final = 60_000_000
"""How long after its deadline an invocation may be said to have ended; its worker is killed long before."""


def believed(outcome: Outcome, limits: SandboxLimits) -> Outcome:
    """Return what may be told on of an outcome.

    Raises:
        FrameError: it claims more than the limits allow, or a log level that does not exist.
    """
    usage = outcome.usage
    if (
        usage.fuel > limits.fuel
        or usage.host_calls > limits.host_calls
        or usage.wasi_calls > limits.wasi_calls + 1  # the call that was one too many counts itself
        or usage.log_bytes > limits.log_bytes
        or usage.input_bytes > limits.input_bytes
    ):
        raise FrameError(f"expected a cost within the limits, got {usage}")
    latest_us = limits.wall_ms * 1_000 + LATE_US_MAX
    if not usage.guest_us <= usage.wall_us <= latest_us:
        wall_us = min(usage.wall_us, latest_us)
        outcome = replace(outcome, usage=replace(usage, wall_us=wall_us, guest_us=min(usage.guest_us, wall_us)))
    if outcome.failure is not None and not outcome.failure.message.isprintable():
        outcome = replace(outcome, failure=Failure(outcome.failure.kind, _harmless(outcome.failure.message)))
    if outcome.logs:
        outcome = replace(outcome, logs=tuple([believed_line(line, limits) for line in outcome.logs]))
    return outcome


def believed_line(line: LogLine, limits: SandboxLimits) -> LogLine:
    """Return what may be told on of a log line.

    Raises:
        FrameError: a log level that does not exist.
    """
    latest_us = limits.wall_ms * 1_000 + LATE_US_MAX
    if line.level not in LEVELS:
        raise FrameError(f"expected a level, got {line.level[:20]!r}")
    if line.at_us <= latest_us and line.message.isprintable():
        return line
    return LogLine(line.level, printable(line.message.encode()), min(line.at_us, latest_us))


def _harmless(message: str) -> str:
    """A message may have several lines; nothing else in it steers a terminal."""
    return "\n".join(printable(line.encode()) for line in message.split("\n"))
