"""The node's side of one invocation's files: its handles, what it may still read and write, and its requests.

A request comes from a worker and is read as hostile. Whatever goes wrong is a reply; only cancellation and errors of
ours leave. Everything here blocks and belongs into a thread: ``perform`` and ``close`` exclude each other, so that no
descriptor is closed under an operation that uses it.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from sandbox.file_beneath import refusal_of
from sandbox.file_protocol import (
    AT,
    BLOCK_BYTES_MAX,
    LIST,
    LIST_BYTES_MAX,
    OPEN,
    OPENED,
    READ,
    RENAME,
    RESIZE,
    TIMES,
    WRITE,
    WRITTEN,
    Entry,
    Errno,
    FileRefusal,
    Mount,
    Open,
    ProtocolError,
    pack_entry,
    pack_mounts,
    pack_reply,
    read_request,
    unpack,
)
from sandbox.file_tree import OpenFile, Tree

_LISTINGS_KEPT: Final = 4
_HANDLE_MAX: Final = (1 << 32) - 1
_OPEN_FLAGS: Final = int(Open.CREATE | Open.DIRECTORY | Open.EXCLUSIVE | Open.TRUNCATE | Open.READ | Open.WRITE)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLimits:
    """What one invocation may do to files. Past any of them the answer is DQUOT (MFILE for ``open_max``)."""

    operations_max: int = 100_000
    bytes_read_max: int = 256 << 20
    bytes_written_max: int = 256 << 20
    open_max: int = 128
    entries_max: int = 10_000
    """Of one directory; ten times as many in all."""


@dataclass(slots=True)
class FileUsage:
    """What one invocation did to files."""

    operations: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    entries: int = 0


@dataclass(frozen=True, slots=True)
class MountPoint:
    """Where the guest finds what. ``tree`` opens it, in a thread, at first use, and may find it gone (None).

    Without ``tree``, and where it finds nothing, every use of the mount is refused with ACCES.
    """

    path: str
    tree: Callable[[int], Tree | None] | None


class FileSession:
    """Serves the file requests of one invocation until it is closed."""

    def __init__(self, mounts: Sequence[MountPoint], limits: FileLimits, *, on_close: Callable[[], None]) -> None:
        """``on_close`` runs once, in a thread, when every descriptor is closed."""
        self.usage = FileUsage()
        self._mounts, self._limits, self._on_close = tuple(mounts), limits, on_close
        self._lock = threading.Lock()
        self._told: tuple[Mount, ...] | None = None
        self._trees: list[Tree] = []
        self._files: dict[int, OpenFile] = {}
        self._listings: OrderedDict[int, list[Entry]] = OrderedDict()
        self._absent: set[int] = set()
        self._last_handle = 0
        self._is_closed = False

    def perform(self, function: str, argument: bytes) -> bytes:
        """Carry one request out and return the reply."""
        with self._lock:
            try:
                return pack_reply(Errno.SUCCESS, self._perform(function, argument))
            except FileRefusal as refusal:
                return pack_reply(refusal.errno)
            except OSError as error:
                return pack_reply(refusal_of(error).errno)
            except ProtocolError:
                return pack_reply(Errno.INVAL)

    def close(self) -> None:
        """Close everything; whatever is asked afterwards is refused."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            try:
                for held in self._files.values():
                    held.tree.release(held)
                for tree in self._trees:
                    tree.close()
            finally:
                self._files.clear()
                self._trees.clear()
                self._listings.clear()
                self._on_close()

    def _perform(self, function: str, argument: bytes) -> bytes:
        operation = self._OPERATIONS.get(function)
        if operation is None or self._is_closed:
            raise FileRefusal(Errno.NOSYS)
        self.usage.operations += 1
        if self.usage.operations > self._limits.operations_max:
            raise FileRefusal(Errno.DQUOT)
        closes, record = read_request(argument)
        for handle in closes:
            self._close_handle(handle)
        return operation(self, record)

    # --- handles

    def _file(self, handle: int) -> OpenFile:
        held = self._files.get(handle)
        if held is None:
            raise FileRefusal(Errno.ACCES if handle in self._absent else Errno.BADF)
        return held

    def _keep(self, held: OpenFile) -> int:
        """Number what was opened; numbers are never used again."""
        self._last_handle += 1
        self._files[self._last_handle] = held
        return self._last_handle

    def _require_room(self) -> None:
        if len(self._files) >= self._limits.open_max + len(self._trees) or self._last_handle >= _HANDLE_MAX:
            raise FileRefusal(Errno.MFILE)

    def _close_handle(self, handle: int) -> None:
        held = self._files.pop(handle, None)
        self._listings.pop(handle, None)
        if held is not None:
            held.tree.release(held)

    # --- operations

    def _mount(self, _record: bytes) -> bytes:
        """Open the mounts, once. One that is not there for this guest is told all the same: its use is refused."""
        if self._told is None:
            self._told = tuple([self._mounted(number, point) for number, point in enumerate(self._mounts, start=1)])
        return pack_mounts(self._told)

    def _mounted(self, number: int, point: MountPoint) -> Mount:
        path = point.path.encode()
        tree = None if point.tree is None else point.tree(number)
        if tree is None:
            self._last_handle += 1
            self._absent.add(self._last_handle)
            return Mount(self._last_handle, False, path)
        self._trees.append(tree)
        return Mount(self._keep(tree.open_root()), tree.writable, path)

    def _open(self, record: bytes) -> bytes:
        handle, flags = unpack(OPEN, record)
        if flags & ~_OPEN_FLAGS:
            raise FileRefusal(Errno.INVAL)
        self._require_room()
        directory = self._file(handle)
        held = directory.tree.open(directory, record[OPEN.size :], Open(flags))
        return OPENED.pack(self._keep(held), held.kind)

    def _read(self, record: bytes) -> bytes:
        handle, offset, length = unpack(READ, record)
        held = self._file(handle)
        left = self._limits.bytes_read_max - self.usage.bytes_read
        if left <= 0:
            raise FileRefusal(Errno.DQUOT)
        data = held.tree.read(held, offset, min(length, BLOCK_BYTES_MAX, left))
        self.usage.bytes_read += len(data)
        return data

    def _write(self, record: bytes) -> bytes:
        handle, offset, append = unpack(WRITE, record)
        held, data = self._file(handle), record[WRITE.size :]
        if len(data) > BLOCK_BYTES_MAX:
            raise FileRefusal(Errno.TOO_BIG)
        if self.usage.bytes_written + len(data) > self._limits.bytes_written_max:
            raise FileRefusal(Errno.DQUOT)
        written, position = held.tree.write(held, offset, data, append=bool(append))
        self.usage.bytes_written += written
        return WRITTEN.pack(written, position)

    def _list(self, record: bytes) -> bytes:
        handle, cookie = unpack(LIST, record)
        held = self._file(handle)
        listing = self._listings.get(handle) if cookie else None
        if listing is None:
            room = 10 * self._limits.entries_max - self.usage.entries
            if room <= 0:
                raise FileRefusal(Errno.DQUOT)
            listing = held.tree.entries(held, min(self._limits.entries_max, room))
            self.usage.entries += len(listing)
            self._listings[handle] = listing
            while len(self._listings) > _LISTINGS_KEPT:
                self._listings.popitem(last=False)
        result = bytearray()
        for entry in listing[cookie:]:
            packed = pack_entry(entry)
            if len(result) + len(packed) > LIST_BYTES_MAX:
                break
            result += packed
        return bytes(result)

    def _stat(self, record: bytes) -> bytes:
        handle, follow = unpack(AT, record)
        held = self._file(handle)
        return held.tree.stat(held, record[AT.size :], follow=bool(follow)).pack()

    def _times(self, record: bytes) -> bytes:
        handle, access, accessed, modification, modified = unpack(TIMES, record)
        held = self._file(handle)
        held.tree.set_times(held, record[TIMES.size :], (access, accessed), (modification, modified))
        return b""

    def _resize(self, record: bytes) -> bytes:
        handle, size = unpack(RESIZE, record)
        held = self._file(handle)
        held.tree.resize(held, size)
        return b""

    def _sync(self, record: bytes) -> bytes:
        held = self._file(unpack(AT, record)[0])
        held.tree.sync(held)
        return b""

    def _mkdir(self, record: bytes) -> bytes:
        held, path = self._directory_and_path(record)
        held.tree.mkdir(held, path)
        return b""

    def _rmdir(self, record: bytes) -> bytes:
        held, path = self._directory_and_path(record)
        held.tree.rmdir(held, path)
        return b""

    def _unlink(self, record: bytes) -> bytes:
        held, path = self._directory_and_path(record)
        held.tree.unlink(held, path)
        return b""

    def _directory_and_path(self, record: bytes) -> tuple[OpenFile, bytes]:
        handle, _ = unpack(AT, record)
        return self._file(handle), record[AT.size :]

    def _rename(self, record: bytes) -> bytes:
        source, target, length = unpack(RENAME, record)
        old, new = record[RENAME.size : RENAME.size + length], record[RENAME.size + length :]
        held = self._file(source)
        held.tree.rename(held, old, self._file(target), new)
        return b""

    _OPERATIONS: ClassVar[dict[str, Callable[["FileSession", bytes], bytes]]] = {
        "mounts": _mount,
        "open": _open,
        "read": _read,
        "write": _write,
        "list": _list,
        "stat": _stat,
        "times": _times,
        "resize": _resize,
        "sync": _sync,
        "mkdir": _mkdir,
        "rmdir": _rmdir,
        "unlink": _unlink,
        "rename": _rename,
    }
