"""Paths of guests: what is left of them names something below, whatever was written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.file_paths import parse_path
from sandbox.file_protocol import NAME_BYTES_MAX, PATH_BYTES_MAX, Errno, FileRefusal

PIECES = st.sampled_from([b"a", b"bb", b".", b"..", b"", b"...", b". ", "é".encode(), b"x" * 255])


@given(st.lists(PIECES, min_size=1, max_size=12))
def test_what_is_left_are_plain_names_that_lead_where_a_shell_would_go(pieces: list[bytes]) -> None:
    path = b"/".join(pieces)
    depth, lowest = 0, 0
    for piece in pieces:
        depth += {b"..": -1, b".": 0, b"": 0}.get(piece, 1)
        lowest = min(lowest, depth)
    if lowest < 0 or path.startswith(b"/") or not path:
        with pytest.raises(FileRefusal):
            parse_path(path)
        return
    parsed = parse_path(path)
    assert not any(b"/" in name or name in {b"", b".", b".."} for name in parsed.names)
    assert b"/".join(parsed.names) == _normal(pieces)


def _normal(pieces: list[bytes]) -> bytes:
    kept: list[bytes] = []
    for piece in pieces:
        if piece == b"..":
            kept.pop()
        elif piece not in {b"", b"."}:
            kept.append(piece)
    return b"/".join(kept)


@given(st.binary(max_size=40))
def test_any_bytes_are_a_path_or_a_refusal(path: bytes) -> None:
    try:
        parsed = parse_path(path)
    except FileRefusal:
        return
    assert b"\0" not in path
    for name in parsed.names:
        name.decode()


@pytest.mark.parametrize(
    ("path", "errno"),
    [
        (b"x" * (NAME_BYTES_MAX + 1), Errno.NAMETOOLONG),
        (b"x/" * (PATH_BYTES_MAX // 2) + b"y", Errno.NAMETOOLONG),
        (b"", Errno.NOENT),
        (b"a\0", Errno.INVAL),
        (b"\xc3\x28", Errno.ILSEQ),
        (b"\xed\xa0\x80", Errno.ILSEQ),
        (b"/a", Errno.PERM),
        (b"a/../..", Errno.PERM),
    ],
)
def test_each_wrong_path_has_its_errno(path: bytes, errno: Errno) -> None:
    with pytest.raises(FileRefusal) as refusal:
        parse_path(path)
    assert refusal.value.errno is errno


@pytest.mark.parametrize("path", [b"a/", b"a/.", b"a/b/..", b"."])
def test_a_path_that_ends_like_a_directory_says_so(path: bytes) -> None:
    assert parse_path(path).is_directory
    assert not parse_path(b"a/b").is_directory
