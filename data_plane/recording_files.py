"""Recordings on the node's disk: encrypted, by tenant, bounded in number, bytes and age for each tenant.

A recording is written whole or not at all (temporary file, fsync, rename), and the oldest of its tenant make room for
it. What is there is known from a look at the directory when the node starts; a name that comes from a request is only
ever looked up in that, never made into a path.
"""

import asyncio
import contextlib
import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from data_plane.agents.refusals import UnknownRecordingError
from data_plane.recording_envelope import RecordingDamagedError, RecordingKeys, open_envelope, seal
from data_plane.sealed_files import StoreFailedError, sync_directory, write_durably
from service.telemetry import RECORDINGS, RECORDINGS_KEPT_BYTES, Telemetry

_SUFFIX: Final = ".recording"
_NAME: Final = re.compile(r"[0-9a-z]{1,64}")
_SWEEP_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingBounds:
    """For each tenant."""

    count_max: int
    bytes_max: int
    age_s_max: float


@dataclass(frozen=True, slots=True)
class KeptRecording:
    """``size`` in bytes, encrypted; ``written_s`` in seconds since the epoch."""

    invocation_id: str
    size: int
    written_s: float


class RecordingFiles:
    """The collection. ``clock`` gives seconds since the epoch, like the files' times."""

    def __init__(
        self,
        directory: Path,
        *,
        keys: RecordingKeys,
        bounds: RecordingBounds,
        telemetry: Telemetry,
        clock: Callable[[], float],
    ) -> None:
        self.bounds = bounds
        self._directory, self._keys, self._telemetry, self._clock = directory, keys, telemetry, clock
        self._index: dict[str, OrderedDict[str, KeptRecording]] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        telemetry.measure(RECORDINGS_KEPT_BYTES, self._bytes_kept)

    def load(self) -> None:
        """Learn what is there; what a crash left half written is removed. Called once, before anything else."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in self._directory.iterdir():
            found: list[tuple[float, str, int]] = []
            for path in folder.iterdir() if folder.is_dir() else ():
                if path.suffix == _SUFFIX and _NAME.fullmatch(path.stem):
                    facts = path.stat()
                    found.append((facts.st_mtime, path.stem, facts.st_size))
                else:
                    path.unlink(missing_ok=True)
            self._index[folder.name] = OrderedDict(
                (name, KeptRecording(name, size, at)) for at, name, size in sorted(found)
            )

    def has(self, tenant: str, invocation_id: str) -> bool:
        return invocation_id in self._index.get(_folder(tenant), ())

    def page(self, tenant: str, *, before: str = "", count_max: int) -> Sequence[KeptRecording]:
        """Return what is kept of a tenant, by id from the newest; ``before`` is the id that ended the page before."""
        kept = self._index.get(_folder(tenant), OrderedDict()).values()
        found = [each for each in kept if not before or each.invocation_id < before]
        return sorted(found, key=lambda each: each.invocation_id, reverse=True)[:count_max]

    async def delete(self, tenant: str, invocation_id: str) -> None:
        """Remove a recording of this tenant, durably.

        Raises:
            UnknownRecordingError: it has none of this invocation; another tenant's is none.
            StoreFailedError: the disk is broken; the recording is listed no more, and is there again after a restart.
        """
        folder = _folder(tenant)
        async with self._turn(folder):
            if not self.has(tenant, invocation_id):
                raise UnknownRecordingError(invocation_id)
            del self._index[folder][invocation_id]
            await asyncio.to_thread(self._erase, folder, invocation_id)
        self._telemetry.count(RECORDINGS, "deleted")

    async def keep(self, tenant: str, invocation_id: str, content: bytes) -> None:
        """Write a recording durably; the tenant's oldest make room.

        Raises:
            StoreFailedError: the disk is full or broken.
            ValueError: the id is none that this node gave out.
        """
        if not _NAME.fullmatch(invocation_id):
            raise ValueError(f"expected an invocation's id, got {invocation_id[:80]!r}")
        envelope = await seal(content, tenant=tenant, invocation_id=invocation_id, keys=self._keys)
        folder = _folder(tenant)
        async with self._turn(folder):
            await asyncio.to_thread(self._write, folder, invocation_id, envelope)
            self._index.setdefault(folder, OrderedDict())[invocation_id] = KeptRecording(
                invocation_id, len(envelope), self._clock()
            )
            await self._make_room(folder)

    async def read(self, tenant: str, invocation_id: str) -> bytes:
        """Return a recording of this tenant.

        Raises:
            UnknownRecordingError: it has none of this invocation; another tenant's is none.
            RecordingDamagedError: it cannot be opened any more.
        """
        if not self.has(tenant, invocation_id):
            raise UnknownRecordingError(invocation_id)
        try:
            envelope = await asyncio.to_thread(self._path(_folder(tenant), invocation_id).read_bytes)
        except FileNotFoundError:  # its time came meanwhile
            raise UnknownRecordingError(invocation_id) from None
        except OSError as error:
            raise RecordingDamagedError(f"expected a readable recording, got {error.strerror}") from error
        return await open_envelope(envelope, tenant=tenant, invocation_id=invocation_id, keys=self._keys)

    async def run(self) -> None:
        """Remove what has become too old, for ever."""
        while True:
            for folder in list(self._index):
                async with self._turn(folder):
                    await self._make_room(folder)
            await asyncio.sleep(_SWEEP_S)

    def _turn(self, folder: str) -> asyncio.Lock:
        """One writer a tenant: no tenant waits for another's disk."""
        return self._turns.setdefault(folder, asyncio.Lock())

    async def _make_room(self, folder: str) -> None:
        kept, bounds = self._index[folder], self.bounds
        size, oldest_s = sum(each.size for each in kept.values()), self._clock() - bounds.age_s_max
        surplus: list[str] = []
        for name, each in kept.items():
            if len(kept) - len(surplus) <= bounds.count_max and size <= bounds.bytes_max and each.written_s > oldest_s:
                break
            size -= each.size
            surplus.append(name)
        for name in surplus:
            del kept[name]
        if surplus:
            self._telemetry.count(RECORDINGS, "dropped", amount=len(surplus))
            await asyncio.to_thread(self._remove, folder, surplus)

    def _write(self, folder: str, invocation_id: str, envelope: bytes) -> None:
        (self._directory / folder).mkdir(mode=0o700, exist_ok=True)
        write_durably(self._path(folder, invocation_id), envelope)

    def _remove(self, folder: str, names: list[str]) -> None:
        for name in names:
            with contextlib.suppress(OSError):
                self._path(folder, name).unlink(missing_ok=True)

    def _erase(self, folder: str, name: str) -> None:
        path = self._path(folder, name)
        try:
            path.unlink(missing_ok=True)
            sync_directory(path.parent)
        except OSError as error:
            raise StoreFailedError(f"expected to remove {path.name}, got {error.strerror}") from error

    def _bytes_kept(self) -> int:
        return sum(each.size for kept in self._index.values() for each in kept.values())

    def _path(self, folder: str, invocation_id: str) -> Path:
        return self._directory / folder / f"{invocation_id}{_SUFFIX}"


def _folder(tenant: str) -> str:
    return hashlib.sha256(tenant.encode()).hexdigest()[:32]
