"""Content-addressed blobs as plain files: what is named by a digest is that digest's bytes, or is not there.

A blob becomes visible by one rename after its bytes are on the disk; SIGKILL leaves at most a temporary file, which the
next start removes. These functions block: callers run them in a thread.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from templates.reasons import AgentFactoryError, Reason

_DIGEST = re.compile(r"[0-9a-f]{64}")


class BlobMissingError(AgentFactoryError):
    """No blob has this digest."""

    reason = Reason.BLOB_MISSING

    def __init__(self, *, sha256: str) -> None:
        super().__init__(f"expected a blob with sha256 {sha256}, got none", metadata={"sha256": sha256})


class BlobDamagedError(AgentFactoryError):
    """The bytes at rest are no longer those of their name; the file is set aside as ``<digest>.damaged``."""

    reason = Reason.BLOB_DAMAGED

    def __init__(self, *, sha256: str, got: str) -> None:
        super().__init__(f"expected bytes with sha256 {sha256}, got {got}", metadata={"sha256": sha256})


class FileBlobs:
    """Blobs below one directory, which this process owns alone."""

    def __init__(self, directory: Path) -> None:
        """Open the store, making its directory if there is none, and remove what a killed process left unfinished."""
        self._blobs = directory
        self._partial = directory / "partial"
        self._partial.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in self._partial.iterdir():
            leftover.unlink()

    def put(self, data: bytes) -> str:
        """Store ``data`` durably and return its digest; storing what is there already costs one comparison.

        A file of that name whose bytes were damaged at rest is replaced.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        target = self._path(sha256)
        if target.is_file() and target.read_bytes() == data:
            return sha256
        if not target.parent.is_dir():
            target.parent.mkdir(mode=0o700, exist_ok=True)
            _sync_directory(self._blobs)
        descriptor, name = tempfile.mkstemp(dir=self._partial)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).rename(target)
        _sync_directory(target.parent)
        return sha256

    def has(self, sha256: str) -> bool:
        return self._path(sha256).is_file()

    def read(self, sha256: str) -> bytes:
        """Return the bytes, checked against their digest.

        Raises:
            BlobMissingError: there is none.
            BlobDamagedError: the file changed at rest; it is set aside, and a repeated `put` mends it.
        """
        path = self._path(sha256)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise BlobMissingError(sha256=sha256) from None
        got = hashlib.sha256(data).hexdigest()
        if got != sha256:
            path.rename(path.with_suffix(".damaged"))
            raise BlobDamagedError(sha256=sha256, got=got)
        return data

    def digests(self) -> Iterator[str]:
        """Every blob that is there, in no order."""
        for shard in self._blobs.iterdir():
            if len(shard.name) == 2:
                yield from (each.name for each in shard.iterdir() if _DIGEST.fullmatch(each.name))

    def sweep(self, *, keep: Collection[str], older_than: float) -> int:
        """Remove blobs that are not in ``keep`` and were last written before ``older_than`` (seconds since 1970).

        The age protects a blob that no transaction refers to yet. Returns how many were removed.
        """
        removed = 0
        for sha256 in list(self.digests()):
            path = self._path(sha256)
            if sha256 not in keep and path.stat().st_mtime < older_than:
                path.unlink()
                removed += 1
        return removed

    def _path(self, sha256: str) -> Path:
        if not _DIGEST.fullmatch(sha256):
            raise BlobMissingError(sha256=sha256[:80])
        return self._blobs / sha256[:2] / sha256


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
