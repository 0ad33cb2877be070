"""A worker that was taken over writes its own outcomes: what it claims is bounded by what was possible."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.claims import Claimed, believed, line_cost, require_room
from sandbox.frames import HEADER_BYTES, LINE_COST, FrameError, Op, pack_log
from sandbox.limits import SandboxLimits
from sandbox.outcome import Failure, FailureKind, LogLine, Outcome, Usage, printable

LIMITS = SandboxLimits(fuel=1_000, wall_ms=100, host_calls=3, wasi_calls=5, log_bytes=256, input_bytes=10)
MOST = Usage(
    fuel=1_000, wall_us=100_000, guest_us=100_000, host_calls=3, wasi_calls=6, log_bytes=256, input_bytes=10
)  # fmt: skip
HUGE = (1 << 64) - 1
LATEST_US = 61_000_000
KNOWN = Claimed(host_calls=0, elapsed_us=LATEST_US)


def test_an_outcome_at_its_limits_is_believed_as_it_is() -> None:
    outcome = Outcome(b"out", None, MOST, (LogLine("info", "a\u00e9 b", 5),))
    assert believed(outcome, LIMITS, KNOWN) == outcome


@pytest.mark.parametrize("field", ["fuel", "host_calls", "wasi_calls", "log_bytes", "input_bytes"])
@pytest.mark.parametrize("more", [1, HUGE])
def test_more_than_the_limits_is_a_broken_protocol(field: str, more: int) -> None:
    claimed = replace(MOST, **{field: min(getattr(MOST, field) + more, HUGE)})
    with pytest.raises(FrameError, match="within the limits"):
        believed(Outcome(b"", None, claimed), LIMITS, KNOWN)


@pytest.mark.parametrize("claimed", [Usage(wall_us=HUGE, guest_us=HUGE), Usage(wall_us=7, guest_us=HUGE)])
def test_times_are_cut_to_what_is_possible(claimed: Usage) -> None:
    usage = believed(Outcome(b"", None, claimed), LIMITS, KNOWN).usage
    assert usage.guest_us == usage.wall_us == min(claimed.wall_us, LATEST_US)


def test_lines_and_messages_cannot_steer_a_terminal() -> None:
    logs = (LogLine("info", "a\x1b[2Jb\nc\u202ed", HUGE), LogLine("error", "a\tb", 1))
    failure = Failure(FailureKind.GUEST_ERROR, "first\nsecond\x1b]0;x\x07\x9b")
    outcome = believed(Outcome(None, failure, Usage(log_bytes=2 * LINE_COST), logs), LIMITS, KNOWN)
    assert outcome.logs == (LogLine("info", "a\\u001b[2Jb\\u000ac\\u202ed", LATEST_US), LogLine("error", "a\tb", 1))
    assert outcome.failure == Failure(FailureKind.GUEST_ERROR, "first\nsecond\\u001b]0;x\\u0007\\u009b")


@pytest.mark.parametrize("level", ["", "INFO", "info\n", "\x1b[2J"])
def test_a_level_that_does_not_exist_is_a_broken_protocol(level: str) -> None:
    with pytest.raises(FrameError, match="level"):
        believed(Outcome(b"", None, Usage(log_bytes=LINE_COST), (LogLine(level, "", 0),)), LIMITS, KNOWN)


def test_fewer_host_calls_than_the_supervisor_saw_is_a_lie() -> None:
    outcome = Outcome(b"", None, Usage(host_calls=1))
    assert believed(outcome, LIMITS, replace(KNOWN, host_calls=1)) == outcome
    with pytest.raises(FrameError, match="within the limits"):
        believed(outcome, LIMITS, replace(KNOWN, host_calls=2))


def test_room_for_a_frame_follows_from_the_limits() -> None:
    require_room(Op.DONE, 1 << 16, LIMITS)
    require_room(Op.LOG, 1 << 16, LIMITS)
    require_room(Op.CALL, 1 << 20, LIMITS)
    for op in (Op.DONE, Op.LOG):
        with pytest.raises(FrameError, match="at most"):
            require_room(op, 2 << 20, LIMITS)


@given(st.text(max_size=2_000))
def test_a_line_never_costs_more_than_its_guest_paid(text: str) -> None:
    """Else an honest worker would be killed: a guest pays for the line and its own text before escaping."""
    message = printable(text.encode())
    payload = pack_log(1, LogLine("warning", message, 5))[HEADER_BYTES:]
    assert line_cost(len(payload)) <= LINE_COST + len(text.encode())
