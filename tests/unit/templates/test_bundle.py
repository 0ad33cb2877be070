import os
import struct

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from templates.bundle import (
    BUNDLE_BYTES_MAX,
    FILES_MAX,
    FRAME_BYTES_MAX,
    Bundle,
    BundleInvalidError,
    FrameRefusedError,
    compress,
    decompress,
    read_bundle,
)

TIMESTAMP = "metadata/timestamp.json"
CHARTER = "targets/charter.json"
SMALL = Bundle(files={TIMESTAMP: b"{}", CHARTER: b"charter", "targets/docs/templates/aa@1.0.0-rc.1.json": b""})


def archive(*files: tuple[bytes, bytes], count: int | None = None, magic: bytes = b"AFB1") -> bytes:
    pieces = [magic, struct.pack(">I", len(files) if count is None else count)]
    for path, data in files:
        pieces += [struct.pack(">I", len(path)), path, struct.pack(">I", len(data)), data]
    return b"".join(pieces)


def test_a_bundle_reads_back_as_it_was_written() -> None:
    assert read_bundle(SMALL.to_bytes()) == SMALL
    assert read_bundle(decompress(compress(SMALL.to_bytes()))) == SMALL


def test_metadata_and_targets_are_told_apart() -> None:
    assert dict(SMALL.metadata) == {"timestamp.json": b"{}"}
    assert set(SMALL.targets) == {"charter.json", "docs/templates/aa@1.0.0-rc.1.json"}
    assert Bundle.of(metadata=SMALL.metadata, targets=SMALL.targets) == SMALL


def test_equal_bundles_give_equal_bytes_whatever_their_order() -> None:
    assert Bundle(files=dict(reversed(list(SMALL.files.items())))).to_bytes() == SMALL.to_bytes()


def test_a_renewed_lease_replaces_the_timestamp_and_nothing_else() -> None:
    renewed = SMALL.with_timestamp(b"new")
    assert renewed.files == {**SMALL.files, TIMESTAMP: b"new"}
    assert SMALL.files[TIMESTAMP] == b"{}"


T, C = (TIMESTAMP.encode(), b"{}"), (CHARTER.encode(), b"c")
REFUSED = {
    "nothing": b"",
    "another kind of file": archive(T, C, magic=b"AFB2"),
    "a cut-off archive": archive(T, C)[:-1],
    "more files declared": archive(T, C, count=3),
    "fewer files declared": archive(T, C, count=1),
    "too many files declared": archive(T, count=FILES_MAX + 1),
    "a file twice": archive(T, T),
    "files out of order": archive(C, T),
    "an absolute path": archive((b"/metadata/x", b"")),
    "a path that climbs": archive((b"metadata/../x", b"")),
    "a hidden file": archive((b"targets/.x", b"")),
    "an empty name": archive((b"targets//x", b"")),
    "a folder of its own": archive((b"other/x", b"")),
    "a path with NUL": archive((b"targets/x\0", b"")),
    "a path that is not ASCII": archive(("targets/é".encode(), b"")),
    "a path with a line end": archive((b"targets/x\n", b"")),
    "a path too long": archive((b"targets/" + b"x" * 600, b"")),
    "a length beyond the end": archive(T)[:-6] + struct.pack(">I", BUNDLE_BYTES_MAX) + b"{}",
    "a length beyond the cap": archive(T)[:-6] + struct.pack(">I", BUNDLE_BYTES_MAX + 1) + b"{}",
}


@pytest.mark.parametrize("name", REFUSED)
def test_bytes_that_are_no_archive_are_refused(name: str) -> None:
    with pytest.raises(BundleInvalidError, match="expected"):
        read_bundle(REFUSED[name])


def test_an_archive_beyond_the_cap_is_refused_before_it_is_read() -> None:
    with pytest.raises(BundleInvalidError, match="at most"):
        read_bundle(bytes(BUNDLE_BYTES_MAX + 1))


@pytest.mark.parametrize("path", ["other/x", "targets/é", "targets/" + "x" * 600])
def test_what_could_not_be_read_is_not_written(path: str) -> None:
    with pytest.raises(BundleInvalidError):
        Bundle(files={path: b""}).to_bytes()


@given(data=st.binary(max_size=300), at=st.integers(0), bit=st.integers(0, 7))
def test_a_damaged_archive_is_refused_or_another_but_never_breaks_the_reader(data: bytes, at: int, bit: int) -> None:
    whole = bytearray(archive(T, (CHARTER.encode(), data)))
    whole[at % len(whole)] ^= 1 << bit
    try:
        bundle = read_bundle(bytes(whole))
    except BundleInvalidError:
        return
    assert bundle.to_bytes() == bytes(whole)


def frame(data: bytes, **parameters: int) -> bytes:
    chosen = {"write_checksum": True, "write_content_size": True, **parameters}
    made = zstandard.ZstdCompressionParameters.from_level(3, **chosen)
    return zstandard.ZstdCompressor(compression_params=made).compress(data)


SKIPPABLE = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
DICTIONARY = zstandard.ZstdCompressionDict(b"some common words" * 20)
REFUSED_FRAMES = {
    "nothing": b"",
    "not zstd": b"not a frame at all",
    "cut off": compress(b"x" * 1000)[:-1],
    "no content": compress(b""),
    "no content, then some": compress(b"") + b"more",
    "two frames": compress(b"a") + compress(b"b"),
    "trailing bytes": compress(b"a") + b"\0",
    "a skippable frame after": compress(b"a") + SKIPPABLE,
    "a skippable frame before": SKIPPABLE + compress(b"a"),
    "content size not declared": frame(b"a", write_content_size=False),
    "no checksum": frame(b"a", write_checksum=False),
    "a window too large": frame(os.urandom(1 << 24), window_log=24),
    "a declared bomb": frame(bytes(BUNDLE_BYTES_MAX + 1)),
    "a dictionary": zstandard.ZstdCompressor(
        dict_data=DICTIONARY, write_checksum=True, write_content_size=True
    ).compress(b"some common words"),
    "a frame too large": bytes(FRAME_BYTES_MAX + 1),
}


@pytest.mark.parametrize("name", REFUSED_FRAMES)
def test_frames_that_declare_too_much_or_are_not_one_frame_are_refused(name: str) -> None:
    with pytest.raises(FrameRefusedError, match="expected"):
        decompress(REFUSED_FRAMES[name])


def test_a_frame_beyond_the_cap_is_refused_before_it_is_read() -> None:
    with pytest.raises(FrameRefusedError, match="expected a frame of at most"):
        decompress(compress(b"a") + bytes(FRAME_BYTES_MAX))


def test_the_caller_can_allow_less() -> None:
    with pytest.raises(FrameRefusedError, match="at most 9 bytes"):
        decompress(compress(b"0123456789"), bytes_max=9)
    assert decompress(compress(b"0123456789"), bytes_max=10) == b"0123456789"


def test_a_content_beyond_the_window_is_compressed_with_the_largest_window_allowed() -> None:
    data = os.urandom(1 << 20) * 9
    made = compress(data, level=3)
    assert zstandard.get_frame_parameters(made).window_size == 1 << 23
    assert decompress(made) == data


def test_a_frame_that_lies_about_its_content_is_refused() -> None:
    made = bytearray(compress(b"x" * 200))
    position = made.index(200)
    made[position] = 199
    with pytest.raises(FrameRefusedError):
        decompress(bytes(made))


@given(data=st.binary(min_size=1, max_size=400), at=st.integers(0), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_frame_is_refused_or_harmless(data: bytes, at: int, bit: int) -> None:
    made = bytearray(compress(data))
    made[at % len(made)] ^= 1 << bit
    try:
        assert decompress(bytes(made)) == data
    except FrameRefusedError:
        return
