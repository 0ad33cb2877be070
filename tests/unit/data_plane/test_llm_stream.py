"""Server-sent events: the same events however the bytes are cut, and every limit an error instead of a full memory."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_plane.broker.answers import ErrorKind, HostRefusal
from data_plane.broker.llm_stream import EventParser, StreamLimits

SMALL = StreamLimits(line_bytes_max=64, bytes_max=512, lines_max=40)


def parsed(*pieces: bytes, limits: StreamLimits = StreamLimits()) -> list[str]:  # noqa: B008 - a frozen value
    parser = EventParser(limits)
    return [event for piece in pieces for event in parser.feed(piece)]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({min(place, len(data)) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(ends)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", ["a"]),
        (b"data: a\r\n\r\n", ["a"]),
        (b"data: a\r\r", ["a"]),
        (b"data:a\n\ndata: b\n\n", ["a", "b"]),
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b"data:  a\n\n", [" a"]),
        (b"data\n\n", [""]),
        (b": comment\n\n\n\ndata: a\n\n", ["a"]),
        (b"event: x\nid: 7\nretry: 5\ndata: a\n\n", ["a"]),
        (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
        (b"data: \xef\xbb\xbfa\n\n", ["\ufeffa"]),
        (b"data: a\n", []),
        (b"data: a", []),
        (b"datax: a\n\n", []),
        (b" data: a\n\n", []),
        (b"", []),
        ("data: é漢\n\n".encode(), ["é漢"]),
        (b"data: a\n\r\n", ["a"]),
    ],
)
def test_the_format_is_that_of_the_standard(stream: bytes, events: list[str]) -> None:
    assert parsed(stream) == events
    assert parsed(*[bytes([each]) for each in stream]) == events


LINES = st.sampled_from(
    [
        b"data: a",
        b"data:",
        b"data",
        b"data: \xc3\xa9\xe6\xbc\xa2",
        b"",
        b"",
        b": c",
        b"id: 1",
        b"\xef\xbb\xbfdata: x",
        b"d",
    ]
)


@given(
    lines=st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=30),
    places=st.lists(st.integers(0, 400), max_size=40),
)
def test_however_the_bytes_are_cut_the_events_are_the_same(lines: list[tuple[bytes, bytes]], places: list[int]) -> None:
    stream = b"".join(line + end for line, end in lines)
    assert parsed(*cut(stream, places)) == parsed(stream)


@given(stream=st.binary(max_size=700), places=st.lists(st.integers(0, 700), max_size=20))
def test_any_bytes_end_in_events_or_in_one_typed_error(stream: bytes, places: list[int]) -> None:
    def outcome(pieces: list[bytes]) -> list[str] | str:
        try:
            return parsed(*pieces, limits=SMALL)
        except HostRefusal as refusal:
            return str(refusal.kind)

    whole, pieces = outcome([stream]), outcome(cut(stream, places))
    assert whole == pieces
    assert isinstance(whole, list) or whole == ErrorKind.FAILED


@pytest.mark.parametrize(
    "stream",
    [
        b"data: " + b"x" * 65,
        b"x" * 65,
        b": " + b"x" * 65 + b"\n",
        b"data: " + b"x" * 40 + b"\ndata: " + b"x" * 40 + b"\n",
        b"data: a\n\n" * 60,
        b"\n" * 41,
        b"data\n" * 41,
        b"data: \xff\n\n",
        b"data: \xed\xa0\x80\n\n",
    ],
    ids=lambda stream: repr(stream[:30]),
)
def test_beyond_a_limit_is_an_error_whole_and_byte_by_byte(stream: bytes) -> None:
    for pieces in ([stream], [bytes([each]) for each in stream]):
        with pytest.raises(HostRefusal) as refusal:
            parsed(*pieces, limits=SMALL)
        assert refusal.value.kind is ErrorKind.FAILED


def test_at_a_limit_is_not_beyond_it() -> None:
    assert parsed(b"data: " + b"x" * 58 + b"\n\n", limits=SMALL) == ["x" * 58]
    assert parsed(b"\n" * 40, limits=SMALL) == []
    assert parsed(b":" * 64 + b"\n", limits=SMALL) == []
