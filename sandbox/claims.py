"""What a supervisor believes of the outcome that a worker reports: whoever took the worker over wrote all of it.

Receipts, budgets, admission and people's terminals go by these numbers and texts. More than the limits allow is a
broken protocol; times, which a busy machine stretches, are cut to what is possible; texts are made harmless again.
"""

from dataclasses import dataclass, replace
from typing import Final

from sandbox.frames import DONE_FIXED_BYTES, ESCAPE_GROWTH, LINE_BYTES, LINE_COST, MESSAGE_BYTES_MAX, FrameError, Op
from sandbox.limits import SandboxLimits
from sandbox.outcome import Failure, LogLine, Outcome, printable

LEVELS: Final = frozenset({"debug", "info", "warning", "error"})
_LEVEL_BYTES_MAX: Final = max(map(len, LEVELS))
_SMALL: Final = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """What the supervisor knows by itself of an invocation: host calls it saw, time since it sent START."""

    host_calls: int
    elapsed_us: int


def require_room(op: int, length: int, limits: SandboxLimits) -> None:
    """Refuse a frame that is longer than this invocation's limits can explain.

    Raises:
        FrameError: it is.
    """
    if op == Op.DONE:
        lines = limits.log_bytes // LINE_COST * LINE_BYTES + ESCAPE_GROWTH * limits.log_bytes
        room = DONE_FIXED_BYTES + max(limits.output_bytes, MESSAGE_BYTES_MAX) + lines
    elif op == Op.LOG:
        room = LINE_BYTES + ESCAPE_GROWTH * limits.log_bytes
    else:
        return
    if length > room + _SMALL:
        raise FrameError(f"expected at most {room + _SMALL} bytes of operation {op}, got {length}")


def line_cost(payload_bytes: int) -> int:
    """Return what a log line costs of the log limit at the least, by the length of its frame.

    A guest pays for its own bytes; escaping made at most six of each.
    """
    return LINE_COST + max(0, payload_bytes - LINE_BYTES - _LEVEL_BYTES_MAX) // ESCAPE_GROWTH


def believed(outcome: Outcome, limits: SandboxLimits, claimed: Claimed) -> Outcome:
    """Return what may be told on of an outcome.

    Raises:
        FrameError: it claims more than the limits allow, fewer host calls than were carried out, or a log level
            that does not exist.
    """
    usage = outcome.usage
    if (
        usage.fuel > limits.fuel
        or usage.host_calls > limits.host_calls
        or usage.wasi_calls > limits.wasi_calls + 1  # the call that was one too many counts itself
        or usage.log_bytes > limits.log_bytes
        or usage.input_bytes > limits.input_bytes
        or usage.host_calls < claimed.host_calls
    ):
        raise FrameError(f"expected a cost within the limits, got {usage}")
    if not usage.guest_us <= usage.wall_us <= claimed.elapsed_us:
        wall_us = min(usage.wall_us, claimed.elapsed_us)
        outcome = replace(outcome, usage=replace(usage, wall_us=wall_us, guest_us=min(usage.guest_us, wall_us)))
    if outcome.failure is not None and not outcome.failure.message.isprintable():
        outcome = replace(outcome, failure=Failure(outcome.failure.kind, _harmless(outcome.failure.message)))
    if outcome.logs:
        outcome = replace(outcome, logs=tuple([believed_line(line, claimed) for line in outcome.logs]))
    return outcome


def believed_line(line: LogLine, claimed: Claimed) -> LogLine:
    """Return what may be told on of a log line.

    Raises:
        FrameError: a log level that does not exist.
    """
    if line.level not in LEVELS:
        raise FrameError(f"expected a level, got {line.level[:20]!r}")
    if line.at_us <= claimed.elapsed_us and line.message.isprintable():
        return line
    return LogLine(line.level, printable(line.message.encode()), min(line.at_us, claimed.elapsed_us))


def _harmless(message: str) -> str:
    """A message may have several lines; nothing else in it steers a terminal."""
    return "\n".join(printable(line.encode()) for line in message.split("\n"))
