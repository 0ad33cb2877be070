"""Log lines that a worker tells while a guest runs: as they were written, within the limit, and only when asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.claims import Claimed, believed_line
from sandbox.frames import TO_SUPERVISOR, FrameError, FrameReader, Op, pack_log, pack_start, read_log, read_start
from sandbox.outcome import LogLine
from sandbox.request import InvocationRequest

LINES = st.builds(
    LogLine, st.sampled_from(["debug", "info", "warning", "error"]), st.text(max_size=200), st.integers(0, 2**60)
)


@given(LINES, st.integers(0, 2**63))
def test_a_line_arrives_as_it_was_told(line: LogLine, number: int) -> None:
    ((op, got, payload),) = FrameReader(TO_SUPERVISOR).feed(pack_log(number, line))
    assert (op, got) == (Op.LOG, number)
    assert read_log(payload) == LogLine(line.level, line.message.encode("utf-8", "replace").decode(), line.at_us)


@pytest.mark.parametrize("payload", [b"", b"\0" * 12, b"\0" * 14, b"\0" * 12 + b"\xff" * 8])
def test_what_is_no_line_is_refused(payload: bytes) -> None:
    with pytest.raises(FrameError):
        read_log(payload)


def test_a_line_that_lies_about_its_lengths_is_refused() -> None:
    ((_, _, payload),) = FrameReader(TO_SUPERVISOR).feed(pack_log(1, LogLine("info", "text", 5)))
    for wrong in (payload + b"x", payload[:-1]):
        with pytest.raises(FrameError):
            read_log(wrong)


def test_a_line_is_believed_as_far_as_it_is_possible() -> None:
    known = Claimed(host_calls=0, elapsed_us=61_000_000)
    assert believed_line(LogLine("info", "a\x1b[31mb", 10**15), known) == LogLine("info", "a\\u001b[31mb", 61_000_000)
    with pytest.raises(FrameError):
        believed_line(LogLine("shout", "a", 1), known)


@pytest.mark.parametrize("asked", [True, False])
def test_a_start_says_whether_lines_are_wanted(asked: object) -> None:
    request = InvocationRequest(code_id="c", abi="command", stream_logs=bool(asked))
    assert read_start(pack_start(1, 2, 3, 4, request)[16:]).stream_logs is asked
