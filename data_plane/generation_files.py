"""What a node keeps of generations, in a private directory (ADR 7).

::

    key                                   this node's secret, for seals only
    belief                                newest root, high-water mark, revocations (sealed)
    generations/<number>-<digest>/bundle  what was accepted, and the digests of its code (sealed)
    generations/<number>-<digest>/lease   the newest timestamp.json for it, where one came later (sealed)
    blobs/<sha256>                        source and modules; the name is the check
    facts/<sha256>                        what inspection found in a module (sealed)
    compiled/                             `sandbox.compile_cache`, under a key of its own
    scratch/                              emptied at start (agents keep their files elsewhere: `scratch_directories`)

A generation appears by one rename of a directory that was fsynced before; the digest in its name lets the same
generation be kept twice for a moment, when it comes again with a newer lease. A crash between any two steps leaves the
old state or the new.
"""

import hashlib
import json
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from data_plane.sealed_files import (
    StoreDamagedError,
    StoreFailedError,
    derived_key,
    load_or_make_key,
    read_sealed,
    sync_directory,
    write_durably,
    write_sealed,
)
from templates.bundle import Bundle, read_bundle
from templates.reasons import AgentFactoryError, Reason
from templates.trusted_set import Belief, read_belief

BLOB_BYTES_MAX: Final = 128 * 1024 * 1024
_FOLDERS: Final = ("generations", "blobs", "facts", "compiled", "scratch")


class BlobError(AgentFactoryError):
    """A blob is not there, or its bytes are not those of its digest; it is fetched again."""

    reason = Reason.BLOB_UNAVAILABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredGeneration:
    """One directory under ``generations``; not yet read."""

    number: int
    directory: Path


class GenerationFiles:
    """Every method blocks on the disk: call it on a thread. Writers must not run beside each other."""

    def __init__(self, directory: Path) -> None:
        """Open or lay out the store; leftovers of a crash are removed.

        Raises:
            StoreFailedError: the directory cannot be made or written.
        """
        self._directory = directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
            shutil.rmtree(directory / "scratch", ignore_errors=True)
            for name in _FOLDERS:
                (directory / name).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StoreFailedError(f"expected a private directory, got {error.strerror}: {directory}") from error
        secret = load_or_make_key(directory / "key")
        self._key = derived_key(secret, "store")
        self.compile_cache_key = derived_key(secret, "compile cache")
        self.database_key = derived_key(secret, "database rows")
        self.audit_key = derived_key(secret, "audit checkpoint")

    @property
    def compile_cache_directory(self) -> Path:
        return self._directory / "compiled"

    # Belief

    def belief(self) -> Belief | None:
        """Return what the node believes besides the bundle; None for a store that never accepted anything.

        Raises:
            StoreDamagedError: unreadable, or missing although generations are there.
        """
        path = self._directory / "belief"
        if not path.exists():
            if self.generations():
                raise StoreDamagedError(path, "a high-water mark beside the stored generations, got none")
            return None
        content = read_sealed(path, purpose="belief", key=self._key)
        try:
            return read_belief(content)
        except AgentFactoryError as error:
            raise StoreDamagedError(path, f"a belief, got {error.message}") from error

    def keep_belief(self, belief: Belief) -> None:
        """Write durably. Call it after `keep`, so that the mark never names what is not on disk."""
        write_sealed(self._directory / "belief", belief.to_bytes(), purpose="belief", key=self._key)

    # Generations

    def generations(self) -> tuple[StoredGeneration, ...]:
        """Return what is stored, highest number first, damaged or not."""
        found = []
        for directory in (self._directory / "generations").iterdir():
            number, _, digest = directory.name.partition("-")
            if number.isdigit() and digest:
                found.append(StoredGeneration(number=int(number), directory=directory))
        return tuple(sorted(found, key=lambda each: (each.number, each.directory.name), reverse=True))

    def load(self, stored: StoredGeneration) -> Bundle:
        """Return the bundle under its newest lease; nothing of it is verified but the seals.

        Raises:
            StoreDamagedError
        """
        path = stored.directory / "bundle"
        _, bundle = self._read_generation(path)
        lease = stored.directory / "lease"
        if lease.exists():
            bundle = bundle.with_timestamp(read_sealed(lease, purpose=f"lease {stored.directory.name}", key=self._key))
        return bundle

    def keep(self, number: int, bundle: Bundle, code: Mapping[str, int]) -> None:
        """Store a verified generation by one rename; ``code`` is what it needs of ``blobs``.

        Raises:
            StoreFailedError: nothing was changed.
        """
        data = bundle.to_bytes()
        name = f"{number:012d}-{hashlib.sha256(data).hexdigest()[:16]}"
        target = self._directory / "generations" / name
        if target.exists() and self._is_intact(target / "bundle"):
            return
        scratch = self._directory / "scratch" / f"{name}.{secrets.token_hex(4)}"
        header = json.dumps({"number": number, "code": dict(code)}).encode()
        try:
            scratch.mkdir(mode=0o700)
            write_sealed(scratch / "bundle", header + b"\n" + data, purpose="generation", key=self._key)
            if target.exists():
                target.rename(self._directory / "scratch" / f"damaged.{secrets.token_hex(4)}")
            scratch.rename(target)
            sync_directory(target.parent)
        except OSError as error:
            raise StoreFailedError(f"expected to store generation {number}, got {error.strerror}") from error

    def keep_lease(self, number: int, timestamp: bytes) -> None:
        """Store a newer lease of the generation; call `keep_belief` after it."""
        for stored in self.generations():
            if stored.number == number:
                purpose = f"lease {stored.directory.name}"
                write_sealed(stored.directory / "lease", timestamp, purpose=purpose, key=self._key)
                return

    def collect(self, *, current: int, kept: int) -> int:
        """Delete all but the newest ``kept`` generations up to ``current``, and blobs and facts that none needs.

        Returns how many blobs went. A generation that cannot be read keeps no blob.
        """
        numbers = sorted({each.number for each in self.generations() if each.number <= current}, reverse=True)[:kept]
        needed: set[str] = set()
        for stored in self.generations():
            if stored.number in numbers:
                try:
                    code, _ = self._read_generation(stored.directory / "bundle")
                    needed |= code.keys()
                    continue
                except StoreDamagedError:
                    pass
            shutil.rmtree(stored.directory, ignore_errors=True)
        unneeded = [path for path in (self._directory / "blobs").iterdir() if path.name not in needed]
        for path in unneeded:
            path.unlink(missing_ok=True)
        for path in (self._directory / "facts").iterdir():
            if path.name not in needed:
                path.unlink(missing_ok=True)
        return len(unneeded)

    def kept_code(self) -> frozenset[str]:
        """Return the digests of everything in ``blobs``."""
        return frozenset(path.name for path in (self._directory / "blobs").iterdir())

    def _read_generation(self, path: Path) -> tuple[Mapping[str, int], Bundle]:
        content = read_sealed(path, purpose="generation", key=self._key)
        header, _, data = content.partition(b"\n")
        try:
            return json.loads(header)["code"], read_bundle(data)
        except (ValueError, KeyError, AgentFactoryError) as error:
            raise StoreDamagedError(path, f"a generation, got {error}") from error

    def _is_intact(self, path: Path) -> bool:
        try:
            self._read_generation(path)
        except StoreDamagedError:
            return False
        return True

    # Blobs and facts

    def has_blob(self, sha256: str, length: int) -> bool:
        """Whether a blob of this name and length is there; its bytes are checked by `blob`."""
        try:
            return (self._directory / "blobs" / sha256).stat().st_size == length
        except OSError:
            return False

    def blob(self, sha256: str) -> bytes:
        """Return the bytes of a blob, checked against its digest; a damaged one is deleted.

        Raises:
            BlobError
        """
        path = self._directory / "blobs" / sha256
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BlobError(f"expected blob {sha256}, got {error.strerror}", metadata={"sha256": sha256}) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            path.unlink(missing_ok=True)
            raise BlobError(f"expected the bytes of blob {sha256}, got others", metadata={"sha256": sha256})
        return data

    def keep_blob(self, sha256: str, data: bytes) -> None:
        """Store a blob durably.

        Raises:
            BlobError: ``data`` has another digest.
            StoreFailedError
        """
        if (got := hashlib.sha256(data).hexdigest()) != sha256:
            raise BlobError(f"expected the bytes of blob {sha256}, got those of {got}", metadata={"sha256": sha256})
        write_durably(self._directory / "blobs" / sha256, data)

    def facts(self, sha256: str) -> bytes | None:
        """Return what was kept about a module; None when absent or damaged (it is found out again)."""
        try:
            return read_sealed(self._directory / "facts" / sha256, purpose=f"facts {sha256}", key=self._key)
        except StoreDamagedError:
            return None

    def keep_facts(self, sha256: str, facts: bytes) -> None:
        write_sealed(self._directory / "facts" / sha256, facts, purpose=f"facts {sha256}", key=self._key)
