"""Sources as bytes: what an archive may hold, read alike by everybody, and bombs refused before they are unpacked."""

import io
import stat
import struct
import zipfile
from collections.abc import Callable

import pytest

from templates.source_archive import (
    ENTRIES_MAX,
    UNPACKED_BYTES_MAX,
    SourceInvalidError,
    check_source,
    read_archive,
    source_text,
)

AGENT = b"def process(text):\n    return text\n"
Entry = tuple[str | zipfile.ZipInfo, bytes]


def packed(*entries: Entry, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return buffer.getvalue()


def linked() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("link.py")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


def encrypted() -> bytes:
    data = bytearray(packed(("agent.py", AGENT), method=zipfile.ZIP_STORED))
    for marker, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.index(marker) + at
        struct.pack_into("<H", data, place, 1)
    return bytes(data)


def understated() -> bytes:
    """A megabyte of zeros, said to be three bytes."""
    data = bytearray(packed(("agent.py", bytes(1 << 20))))
    for marker, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", data, data.index(marker) + at, 3)
    return bytes(data)


def test_files_and_data_are_read_by_name() -> None:
    data = packed(("agent.py", AGENT), ("pkg/data.bin", b"\xff\0"))
    assert read_archive(data) == {"agent.py": AGENT, "pkg/data.bin": b"\xff\0"}
    check_source("agent.zip", data)
    check_source("agent.py", AGENT)


def test_reviewers_read_every_file_and_the_length_of_data() -> None:
    data = packed(("pkg/data.bin", b"\xff\0"), ("agent.py", AGENT))
    assert source_text("agent.zip", data) == f"=== agent.py\n{AGENT.decode()}=== pkg/data.bin\n(2 bytes of data)\n"
    assert source_text("agent.py", AGENT) == AGENT.decode()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: packed(("other.py", AGENT)), "agent.py at the top"),
        (lambda: packed(("agent.py", AGENT), ("../x.py", b"")), "plain file names"),
        (lambda: packed(("agent.py", AGENT), ("/etc/x.py", b"")), "plain file names"),
        (lambda: packed(("agent.py", AGENT), ("a\\b.py", b"")), "plain file names"),
        (lambda: packed(("agent.py", AGENT), ("a//b.py", b"")), "plain file names"),
        (lambda: packed(("agent.py", AGENT), ("pkg/", b"")), "plain file names"),
        (lambda: packed(("agent.py", AGENT), ("a\u202eyp.py", b"")), "plain file names"),
        (lambda: packed(("agent.py", AGENT), ("x" * 201, b"")), "plain file names"),
        (lambda: packed(("agent.py", AGENT), ("agent.py", b"evil = 1")), "each name once"),
        (lambda: packed(("agent.py", AGENT), (linked(), b"/etc/passwd")), "plain files"),
        (lambda: packed(("agent.py", AGENT), method=zipfile.ZIP_BZIP2), "stored or deflated"),
        (encrypted, "encryption"),
        (lambda: packed(("agent.py", AGENT), ("bomb", bytes(UNPACKED_BYTES_MAX))), "bytes or less unpacked"),
        (lambda: packed(("agent.py", AGENT), *((f"f{n}", b"") for n in range(ENTRIES_MAX))), "at most 1000 files"),
        (understated, "damaged|another number"),
        (lambda: packed(("agent.py", AGENT))[:-5], "damaged"),
        (lambda: b"PK\x03\x04", "damaged"),
        (lambda: packed(("agent.py", "x = 1  # \u202e".encode())), "U\\+202E at agent.zip:agent.py:1"),
        (lambda: packed(("agent.py", b"\xff")), "agent.zip:agent.py in UTF-8"),
    ],
)  # fmt: skip
def test_an_archive_that_readers_could_read_apart_or_that_is_a_bomb_is_refused(
    make: Callable[[], bytes], why: str
) -> None:
    with pytest.raises(SourceInvalidError, match=why):
        check_source("agent.zip", make())


def test_a_name_says_what_the_bytes_are() -> None:
    with pytest.raises(SourceInvalidError, match="to be text"):
        check_source("agent.py", packed(("agent.py", AGENT)))
    with pytest.raises(SourceInvalidError, match="to be a zip"):
        check_source("agent.zip", AGENT)
