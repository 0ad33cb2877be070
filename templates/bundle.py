"""One generation as bytes: the metadata and small targets that a node verifies, in an archive, in one zstd frame.

The archive is ``AFB1``, a count, and per file in the order of the paths: length and text of the path, length and bytes
of the content; all numbers are 32 bits, big-endian. There is one archive per content: equal generations, equal bytes.

Sizes are capped before anything is read: the frame's declared content and window before it is decompressed, the counts
and lengths of the archive before anything is copied.
"""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import zstandard

from templates.reasons import AgentFactoryError, Reason

BUNDLE_BYTES_MAX = 67_108_864
FRAME_BYTES_MAX = 33_554_432
WINDOW_LOG_MAX = 23
FILES_MAX = 16_384
PATH_BYTES_MAX = 512

_MAGIC = b"AFB1"
_NUMBER = struct.Struct(">I")
_PATH = re.compile(r"(?:metadata|targets)(?:/[A-Za-z0-9_@-][A-Za-z0-9._@-]*)+")
_METADATA, _TARGETS = "metadata/", "targets/"


class BundleInvalidError(AgentFactoryError):
    """Bytes are not an archive of one generation."""

    reason = Reason.BUNDLE_INVALID


class FrameRefusedError(AgentFactoryError):
    """A compressed frame declares more than is allowed, or is not one single frame."""

    reason = Reason.FRAME_REFUSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """``metadata/<file>`` and ``targets/<path>`` → bytes."""

    files: Mapping[str, bytes]

    @property
    def metadata(self) -> Mapping[str, bytes]:
        """File name → bytes (``1.root.json``, ``timestamp.json``, ``7.snapshot.json``, ``3.plan.json``, others)."""
        return _below(_METADATA, self.files)

    @property
    def targets(self) -> Mapping[str, bytes]:
        """Target path → bytes (``charter.json``, ``plan.json``, ``docs/templates/base@1.0.0.json``, others)."""
        return _below(_TARGETS, self.files)

    @classmethod
    def of(cls, *, metadata: Mapping[str, bytes], targets: Mapping[str, bytes]) -> "Bundle":
        return cls(
            files={f"{_METADATA}{name}": data for name, data in metadata.items()}
            | {f"{_TARGETS}{path}": data for path, data in targets.items()}
        )

    def with_timestamp(self, timestamp: bytes) -> "Bundle":
        """Return the same generation under a renewed lease."""
        return Bundle(files={**self.files, f"{_METADATA}timestamp.json": timestamp})

    def to_bytes(self) -> bytes:
        """Return the archive; equal bundles give equal bytes. Raise `BundleInvalidError` if `read_bundle` would."""
        pieces = [_MAGIC, _NUMBER.pack(len(self.files))]
        for path in sorted(self.files):
            data = self.files[path]
            pieces += [_NUMBER.pack(len(path)), path.encode("ascii", "replace"), _NUMBER.pack(len(data)), data]
        archive = b"".join(pieces)
        read_bundle(archive)
        return archive


def read_bundle(data: bytes) -> Bundle:
    """Read what `Bundle.to_bytes` wrote, uncompressed; raise `BundleInvalidError`."""
    if len(data) > BUNDLE_BYTES_MAX:
        raise BundleInvalidError(f"expected at most {BUNDLE_BYTES_MAX} bytes, got {len(data)}")
    reader = _Reader(data)
    if reader.take(len(_MAGIC)) != _MAGIC:
        raise BundleInvalidError(f"expected an archive that begins with {_MAGIC!r}, got another")
    count = reader.number(FILES_MAX, "files")
    files: dict[str, bytes] = {}
    last = ""
    for _ in range(count):
        path = reader.take(reader.number(PATH_BYTES_MAX, "bytes of a path")).decode("ascii", "replace")
        if not _PATH.fullmatch(path):
            raise BundleInvalidError(f"expected a path below metadata or targets, got {path[:80]!r}")
        if path <= last:
            raise BundleInvalidError(f"expected paths in ascending order, got {path!r} after {last!r}")
        files[path] = reader.take(reader.number(BUNDLE_BYTES_MAX, "bytes of a file"))
        last = path
    if reader.left:
        raise BundleInvalidError(f"expected the archive to end, got {reader.left} more bytes")
    return Bundle(files=files)


def compress(data: bytes, *, level: int = 9) -> bytes:
    """Return one zstd frame that declares its content size and a window of at most 2^`WINDOW_LOG_MAX` bytes."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=len(data),
        window_log=min(WINDOW_LOG_MAX, max(len(data).bit_length(), zstandard.WINDOWLOG_MIN)),
        write_content_size=True,
        write_checksum=True,
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def decompress(frame: bytes, *, bytes_max: int = BUNDLE_BYTES_MAX) -> bytes:
    """Return the content of exactly one zstd frame.

    Raises:
        FrameRefusedError: empty; too large, declared or real; a dictionary; no checksum; anything after the frame.
            Nothing is allocated before the declarations have passed.
    """
    if len(frame) > FRAME_BYTES_MAX:
        raise FrameRefusedError(f"expected a frame of at most {FRAME_BYTES_MAX} bytes, got {len(frame)}")
    try:
        declared = zstandard.get_frame_parameters(frame)
    except zstandard.ZstdError as error:
        raise FrameRefusedError(f"expected a zstd frame, got {error}") from None
    # For a declared size of 0 python-zstandard answers b"" without looking at the rest of the frame.
    if not 0 < declared.content_size <= bytes_max or declared.content_size == zstandard.CONTENTSIZE_UNKNOWN:
        raise FrameRefusedError(f"expected a declared content of 1 to at most {bytes_max} bytes, got another")
    if declared.window_size > 1 << WINDOW_LOG_MAX:
        raise FrameRefusedError(f"expected a window of at most 2^{WINDOW_LOG_MAX} bytes, got {declared.window_size}")
    if declared.dict_id or not declared.has_checksum:
        raise FrameRefusedError("expected a frame with a checksum and without a dictionary, got another")
    try:
        content = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW_LOG_MAX).decompress(
            frame, max_output_size=declared.content_size, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise FrameRefusedError(f"expected one whole zstd frame and nothing after it, got {error}") from None
    if len(content) != declared.content_size:
        raise FrameRefusedError(f"expected {declared.content_size} bytes, as declared, got {len(content)}")
    return content


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, length: int) -> bytes:
        if length > self.left:
            raise BundleInvalidError(f"expected {length} more bytes, got {self.left}")
        self._at += length
        return self._data[self._at - length : self._at]

    def number(self, most: int, what: str) -> int:
        (value,) = _NUMBER.unpack(self.take(_NUMBER.size))
        if value > most:
            raise BundleInvalidError(f"expected at most {most} {what}, got {value}")
        return int(value)


def _below(prefix: str, files: Mapping[str, bytes]) -> Mapping[str, bytes]:
    return {path.removeprefix(prefix): data for path, data in files.items() if path.startswith(prefix)}
