"""One generation as bytes: the metadata and small targets that a node verifies, in an archive, in one zstd frame.

Sizes are capped before anything is read: the frame's declared content and window before it is decompressed, the counts and
lengths of the archive before anything is copied.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from templates.reasons import AgentFactoryError, Reason

BUNDLE_BYTES_MAX = 67_108_864
FRAME_BYTES_MAX = 33_554_432
WINDOW_LOG_MAX = 23
FILES_MAX = 16_384
PATH_BYTES_MAX = 512


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
        """File name → bytes: ``1.root.json``, ``timestamp.json``, ``7.snapshot.json``, ``3.plan.json`` …"""
        raise NotImplementedError

    @property
    def targets(self) -> Mapping[str, bytes]:
        """Target path → bytes: ``charter.json``, ``plan.json``, ``docs/templates/base@1.0.0.json`` …"""
        raise NotImplementedError

    def with_timestamp(self, timestamp: bytes) -> "Bundle":
        """Return the same generation under a renewed lease."""
        raise NotImplementedError

    def to_bytes(self) -> bytes:
        """Return the archive: equal bundles give equal bytes."""
        raise NotImplementedError


def read_bundle(data: bytes) -> Bundle:
    """Read what `Bundle.to_bytes` wrote, uncompressed; raise `BundleInvalidError`."""
    raise NotImplementedError


def compress(data: bytes, *, level: int = 9) -> bytes:
    """Return one zstd frame that declares its content size and a window of at most 2^`WINDOW_LOG_MAX` bytes."""
    raise NotImplementedError


def decompress(frame: bytes, *, bytes_max: int = BUNDLE_BYTES_MAX) -> bytes:
    """Return the content of exactly one zstd frame; raise `FrameRefusedError` before allocating anything beyond ``bytes_max``."""
    raise NotImplementedError
