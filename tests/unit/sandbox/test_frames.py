"""Frames survive every way of being cut, and nothing malformed is believed."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.frames import (
    HEADER_BYTES,
    TO_SUPERVISOR,
    TO_WORKER,
    FrameError,
    FrameReader,
    Op,
    Ready,
    frame,
    pack_answer,
    pack_call,
    pack_done,
    pack_load,
    pack_ready,
    pack_start,
    read_answer,
    read_call,
    read_done,
    read_load,
    read_ready,
    read_start,
)
from sandbox.limits import TRANSFER_BYTES_CEILING, SandboxLimits
from sandbox.outcome import Failure, FailureKind, LogLine, Outcome, Usage
from sandbox.request import InvocationRequest

TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
U32 = st.integers(0, (1 << 32) - 1)
U64 = st.integers(0, (1 << 64) - 1)
REQUESTS = st.builds(
    InvocationRequest,
    code_id=st.just("code"),
    abi=st.just("command"),
    input=st.binary(max_size=200),
    config=st.binary(max_size=50),
    limits=st.builds(
        SandboxLimits,
        fuel=st.integers(1, (1 << 63) - 1),
        wall_ms=st.integers(1, 86_400_000),
        memory_bytes=st.integers(65_536, 1 << 30),
        output_bytes=st.integers(0, 1 << 24),
        host_calls=st.integers(0, 1_000_000_000),
        table_elements=st.integers(1, 1_000_000),
    ),
    granted=st.frozensets(st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1), max_size=4),
    invocation_id=TEXT,
    trace_context=TEXT,
    process=st.booleans(),
)


def payload_of(raw: bytes) -> bytes:
    return raw[HEADER_BYTES:]


@given(st.lists(st.tuples(U64, st.binary(max_size=300)), max_size=10), st.data())
def test_frames_are_the_same_however_the_stream_is_cut(frames: list[tuple[int, bytes]], data: st.DataObject) -> None:
    stream = b"".join(frame(Op.ANSWER, number, payload) for number, payload in frames)
    reader, read, position = FrameReader(TO_WORKER), [], 0
    while position < len(stream):
        size = data.draw(st.integers(1, len(stream) - position))
        read += list(reader.feed(stream[position : position + size]))
        position += size
    assert read == [(Op.ANSWER, number, payload) for number, payload in frames]


@pytest.mark.parametrize(
    "raw",
    [
        struct.pack("<IB3xQ", 0, 0, 1),
        struct.pack("<IB3xQ", 0, 255, 1),
        struct.pack("<IB3xQ", 0, Op.DONE, 1),
        struct.pack("<IB3xQ", 1, Op.CANCEL, 1),
        struct.pack("<IB3xQ", 0xFFFFFFFF, Op.START, 1),
    ],
    ids=["operation 0", "unknown operation", "the other side's", "over its cap", "4 GiB"],
)
def test_a_header_that_lies_is_refused_before_its_payload(raw: bytes) -> None:
    with pytest.raises(FrameError):
        list(FrameReader(TO_WORKER).feed(raw))


@given(REQUESTS, U64, U64)
def test_a_start_arrives_as_it_was_sent(request: InvocationRequest, number: int, deadline: int) -> None:
    ((op, got, payload),) = FrameReader(TO_WORKER).feed(pack_start(number, 3, 4, deadline, request))
    start = read_start(payload)
    assert (op, got, start.code, start.source, start.deadline_ns) == (Op.START, number, 3, 4, deadline)
    assert (start.input, start.config, start.granted) == (request.input, request.config, request.granted)
    assert (start.limits, start.process) == (request.limits, request.process)
    assert (start.invocation_id, start.trace_context) == (request.invocation_id, request.trace_context)


@pytest.mark.parametrize(
    "request_",
    [
        InvocationRequest(code_id="c", abi="command", invocation_id="x" * 65_536),
        InvocationRequest(code_id="c", abi="command", trace_context="x" * 65_536),
        InvocationRequest(code_id="c", abi="command", input=bytes(TRANSFER_BYTES_CEILING + 1)),
    ],
)
def test_a_request_that_does_not_fit_is_refused(request_: InvocationRequest) -> None:
    with pytest.raises(ValueError, match="fits a frame"):
        pack_start(1, 1, 0, 0, request_)


@given(st.binary(max_size=200))
def test_bytes_at_random_are_no_start(data: bytes) -> None:
    with pytest.raises(FrameError):
        read_start(data)


@given(st.data())
def test_a_start_that_was_cut_or_extended_is_refused(data: st.DataObject) -> None:
    payload = payload_of(pack_start(1, 1, 0, 5, data.draw(REQUESTS)))
    cut = data.draw(st.integers(0, len(payload) - 1))
    for wrong in (payload[:cut], payload + b"x"):
        with pytest.raises(FrameError):
            read_start(wrong)


@given(TEXT.filter(str.isascii).filter(bool), st.binary(max_size=100))
def test_a_call_arrives_as_it_was_sent(name: str, argument: bytes) -> None:
    ((op, number, payload),) = FrameReader(TO_SUPERVISOR).feed(pack_call(9, name, "get", argument, fuel_used=7))
    assert (op, number) == (Op.CALL, 9)
    assert read_call(payload) == (7, name, "get", argument)


@given(st.binary(max_size=100), st.integers(0, (1 << 64) - 1))
def test_an_answer_arrives_as_it_was_sent(answer: bytes, fuel: int) -> None:
    ((op, number, payload),) = FrameReader(TO_WORKER).feed(pack_answer(9, answer, fuel=fuel))
    assert (op, number) == (Op.ANSWER, 9)
    assert read_answer(payload) == (answer, fuel)
    with pytest.raises(FrameError):
        read_answer(payload[:7])


@given(st.binary(max_size=200))
def test_bytes_at_random_are_a_call_or_refused(data: bytes) -> None:
    try:
        fuel_used, interface, function, argument = read_call(data)
    except FrameError:
        return
    assert payload_of(pack_call(1, interface, function, argument, fuel_used=fuel_used)) == data


LINES = st.lists(st.builds(LogLine, st.sampled_from(["info", "error"]), TEXT, U64), max_size=5)


@given(
    st.one_of(st.binary(max_size=100), st.builds(Failure, st.sampled_from(list(FailureKind)), TEXT)),
    st.builds(Usage, U64, U64, U64, U32, U32, U32, U32),
    LINES,
    st.booleans(),
)
def test_an_end_arrives_as_it_was_sent(
    end: bytes | Failure,
    usage: Usage,
    lines: list[LogLine],
    logs_cut: bool,  # noqa: FBT001 - hypothesis passes it
) -> None:
    output, failure = (None, end) if isinstance(end, Failure) else (end, None)
    raw = pack_done(7, output, failure, usage, lines, logs_cut=logs_cut)
    ((op, number, payload),) = FrameReader(TO_SUPERVISOR).feed(raw)
    assert (op, number) == (Op.DONE, 7)
    produced = 0 if output is None else len(output)
    expected = Usage(
        usage.fuel, usage.wall_us, usage.guest_us, usage.host_calls, usage.wasi_calls, usage.log_bytes,
        usage.input_bytes, produced,
    )  # fmt: skip
    assert read_done(payload, SandboxLimits()) == Outcome(output, failure, expected, tuple(lines), logs_cut)


@given(st.binary(max_size=300))
def test_bytes_at_random_are_an_end_within_the_limits_or_refused(data: bytes) -> None:
    limits = SandboxLimits(output_bytes=10, log_bytes=64)
    try:
        outcome = read_done(data, limits)
    except FrameError:
        return
    assert len(outcome.output or b"") <= 10
    assert len(outcome.logs) <= 4


@given(LINES.filter(bool), st.data())
def test_an_end_that_was_cut_is_refused(lines: list[LogLine], data: st.DataObject) -> None:
    payload = payload_of(pack_done(1, b"out", None, Usage(), lines, logs_cut=False))
    with pytest.raises(FrameError):
        read_done(payload[: data.draw(st.integers(0, len(payload) - 1))], SandboxLimits())


def test_a_failure_message_is_cut_to_what_travels() -> None:
    raw = pack_done(1, None, Failure(FailureKind.TRAP, "é" * 4_000), Usage(), [], logs_cut=False)
    failure = read_done(payload_of(raw), SandboxLimits()).failure
    assert failure is not None
    assert len(failure.message.encode()) <= 4_098


@pytest.mark.parametrize("abi", ["component", "image", "command"])
def test_a_load_names_its_abi(abi: str) -> None:
    assert read_load(payload_of(pack_load(1, abi))) == abi  # type: ignore[arg-type]  # one of the three


@pytest.mark.parametrize("payload", [b"", b"native", b"command\0", b"\xff"])
def test_an_unknown_abi_is_refused(payload: bytes) -> None:
    with pytest.raises(FrameError):
        read_load(payload)


def test_ready_names_its_level() -> None:
    ready = Ready("landlock+seccomp", "ab" * 32)
    assert read_ready(pack_ready(ready)) == ready
    for payload in (b"", b"none abc", b"\xff\xfe"):
        with pytest.raises(FrameError):
            read_ready(payload)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fuel", 0),
        ("fuel", 1 << 63),
        ("wall_ms", 0),
        ("memory_bytes", 65_535),
        ("memory_bytes", (1 << 30) + 1),
        ("input_bytes", -1),
        ("output_bytes", (1 << 24) + 1),
        ("host_calls", -1),
        ("memories", 0),
        ("instances", 257),
    ],
)
def test_limits_beyond_what_the_sandbox_can_promise_are_refused(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"expected {field} from"):
        SandboxLimits(**{field: value})
