"""One directory of the host as guests may use it: the operations, each safe by itself against links and races.

Every path is relative to the descriptor of a directory; its parent is opened beneath that (``file_beneath``), and the
last name is used relative to the parent's descriptor. Everything here blocks: it runs in threads.
"""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from sandbox.file_beneath import make_file, open_directory_beneath, open_plain
from sandbox.file_paths import GuestPath, parse_path
from sandbox.file_protocol import TIME_NOW, TIME_SET, Entry, Errno, FileRefusal, Kind, Open, Stat
from sandbox.file_quota import Ledger

OFFSET_MAX: Final = (1 << 63) - 1
_ATTEMPTS_MAX: Final = 4
_KINDS: Final = {stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFREG: Kind.FILE, stat.S_IFLNK: Kind.LINK}


@dataclass(slots=True)
class OpenFile:
    """Something a guest holds open. ``depth`` is that of a directory; one that was moved up is deeper than it says."""

    tree: "Tree"
    descriptor: int
    kind: Kind
    inode: int
    readable: bool
    writable: bool
    depth: int


@dataclass(frozen=True, slots=True)
class Place:
    """A name in an open directory."""

    directory: int
    name: bytes
    depth: int
    is_directory: bool


class Tree:
    """A directory, by a descriptor that it owns. Without ``ledger`` nothing is counted; ``number`` is the guest's."""

    def __init__(
        self, root: int, *, writable: bool, number: int = 1, ledger: Ledger | None = None, free_bytes_min: int = 0
    ) -> None:
        self.root, self.writable, self.number, self.ledger = root, writable, number, ledger
        self._free_bytes_min = free_bytes_min
        self._device = os.fstat(root).st_dev

    def close(self) -> None:
        os.close(self.root)

    # --- opening

    def open_root(self) -> OpenFile:
        """Open the directory itself."""
        return self._hold(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.root), depth=0)

    def open(self, directory: OpenFile, path: bytes, flags: Open) -> OpenFile:
        """Open a file or a directory, or make a file.

        Raises:
            FileRefusal, OSError: it cannot be, for the reason that POSIX gives, or as ``file_beneath`` says.
        """
        parsed = parse_path(path)
        if not parsed.names:
            if flags & (Open.WRITE | Open.CREATE | Open.TRUNCATE):
                raise FileRefusal(Errno.ISDIR)
            found = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory.descriptor)
            return self._hold(found, depth=directory.depth)
        with self._place(directory, parsed) as place, self._counting():
            for _ in range(_ATTEMPTS_MAX):
                try:
                    return self._open_existing(place, flags)
                except FileNotFoundError:
                    if not flags & Open.CREATE:
                        raise
                try:
                    return self._make(place, flags)
                except FileExistsError:  # somebody else was faster
                    if flags & Open.EXCLUSIVE:
                        raise
        raise FileRefusal(Errno.AGAIN)

    def _open_existing(self, place: Place, flags: Open) -> OpenFile:
        wants_write = bool(flags & (Open.WRITE | Open.TRUNCATE))
        if flags & Open.CREATE and flags & Open.EXCLUSIVE:
            os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)
            raise FileRefusal(Errno.EXIST)
        found = os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            if wants_write or flags & Open.CREATE:
                raise FileRefusal(Errno.ISDIR)
        elif stat.S_ISREG(found.st_mode):
            if place.is_directory or flags & Open.DIRECTORY:
                raise FileRefusal(Errno.NOTDIR)
            if wants_write and not self.writable:
                raise FileRefusal(Errno.ROFS)
        access = os.O_RDONLY if not wants_write else os.O_RDWR if flags & Open.READ else os.O_WRONLY
        descriptor, found = open_plain(place.directory, place.name, access, device=self._device)
        try:
            if wants_write:
                _require_one_name(found)
            held = self._hold(descriptor, depth=place.depth, readable=bool(flags & Open.READ), writable=wants_write)
        except BaseException:
            os.close(descriptor)
            raise
        if flags & Open.TRUNCATE:
            try:
                self.resize(held, 0)
            except BaseException:
                self.release(held)
                raise
        held.writable = bool(flags & Open.WRITE)
        return held

    def _make(self, place: Place, flags: Open) -> OpenFile:
        if place.is_directory or flags & Open.DIRECTORY:
            raise FileRefusal(Errno.ISDIR if place.is_directory else Errno.INVAL)
        self._require_writable()
        access = os.O_RDWR if flags & Open.READ else os.O_WRONLY
        with self._counting() as ledger:
            if ledger is not None:
                ledger.require_file(place.depth)
                self._require_free()
            descriptor = make_file(place.directory, place.name, access)
            if ledger is not None:
                ledger.made()
            readable, writable = bool(flags & Open.READ), bool(flags & Open.WRITE)
            return self._hold(descriptor, depth=place.depth, readable=readable, writable=writable)

    def _hold(self, descriptor: int, *, depth: int, readable: bool = True, writable: bool = False) -> OpenFile:
        found = os.fstat(descriptor)
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), Kind.UNKNOWN)
        with self._counting() as ledger:
            if ledger is not None:
                ledger.opened(found.st_ino)
        return OpenFile(self, descriptor, kind, found.st_ino, readable, writable, depth)

    def release(self, held: OpenFile) -> None:
        """Close what was opened."""
        with self._counting() as ledger:
            if ledger is not None:
                found = os.fstat(held.descriptor)
                ledger.closed(held.inode, found.st_size if stat.S_ISREG(found.st_mode) else 0)
            os.close(held.descriptor)

    # --- files

    def read(self, held: OpenFile, offset: int, length: int) -> bytes:
        _require_file(held)
        if not held.readable:
            raise FileRefusal(Errno.BADF)
        if offset > OFFSET_MAX - length:
            raise FileRefusal(Errno.INVAL)
        return os.pread(held.descriptor, length, offset)

    def write(self, held: OpenFile, offset: int, data: bytes, *, append: bool) -> tuple[int, int]:
        """Return how many bytes were written and the offset after them."""
        _require_file(held)
        if not held.writable:
            raise FileRefusal(Errno.BADF)
        with self._counting() as ledger:
            before = os.fstat(held.descriptor).st_size
            start = before if append else offset
            after = max(before, start + len(data)) if data else before
            if start > OFFSET_MAX - len(data):
                raise FileRefusal(Errno.FBIG)
            if ledger is not None and after > before:
                ledger.require_growth(before, after)
                self._require_free()
            try:
                written = os.pwrite(held.descriptor, data, start) if data else 0
            finally:
                if ledger is not None:
                    ledger.resized(before, os.fstat(held.descriptor).st_size)
        return written, start + written

    def resize(self, held: OpenFile, size: int) -> None:
        _require_file(held)
        if not held.writable:
            raise FileRefusal(Errno.INVAL)
        if size > OFFSET_MAX:
            raise FileRefusal(Errno.FBIG)
        with self._counting() as ledger:
            before = os.fstat(held.descriptor).st_size
            if ledger is not None and size > before:
                ledger.require_growth(before, size)
                self._require_free()
            os.ftruncate(held.descriptor, size)
            if ledger is not None:
                ledger.resized(before, size)

    def sync(self, held: OpenFile) -> None:
        """Have the disk hold what a file holds."""
        if held.kind is Kind.FILE and held.writable:
            os.fdatasync(held.descriptor)

    # --- names

    def stat(self, held: OpenFile, path: bytes, *, follow: bool) -> Stat:
        """Describe the handle itself (empty path) or what a path leads to; a link only if it is not to be followed."""
        if not path:
            return self._stat(os.fstat(held.descriptor))
        parsed = parse_path(path)
        if not parsed.names:
            _require_directory(held)
            return self._stat(os.fstat(held.descriptor))
        with self._place(held, parsed) as place:
            found = os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode) and (follow or place.is_directory):
            raise FileRefusal(Errno.NOENT)  # as one that leads nowhere: programs that look around go on
        if place.is_directory and not stat.S_ISDIR(found.st_mode):
            raise FileRefusal(Errno.NOTDIR)
        return self._stat(found)

    def _stat(self, found: os.stat_result) -> Stat:
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), Kind.UNKNOWN)
        size = found.st_size if kind is Kind.FILE else 0
        times = (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)
        return Stat(kind, self.number, found.st_ino, size, *(max(each, 0) for each in times))

    def set_times(self, held: OpenFile, path: bytes, access: tuple[int, int], modification: tuple[int, int]) -> None:
        """``access`` and ``modification``: what to do and nanoseconds, as in the protocol."""
        self._require_writable()
        if not path:
            found = os.fstat(held.descriptor)
            os.utime(held.descriptor, ns=_times(found, access, modification))
            return
        parsed = parse_path(path)
        if not parsed.names:
            raise FileRefusal(Errno.PERM)
        with self._place(held, parsed) as place:
            found = os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                raise FileRefusal(Errno.LOOP)
            times = _times(found, access, modification)
            os.utime(place.name, ns=times, dir_fd=place.directory, follow_symlinks=False)

    def entries(self, held: OpenFile, count_max: int) -> list[Entry]:
        """Return a directory's entries in the order of their names; those whose names are not UTF-8 do not exist.

        Raises:
            FileRefusal: OVERFLOW for more than ``count_max``.
        """
        _require_directory(held)
        found: list[Entry] = []
        with os.scandir(held.descriptor) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                try:
                    name.decode()
                except UnicodeDecodeError:
                    continue
                if len(found) >= count_max:
                    raise FileRefusal(Errno.OVERFLOW)
                found.append(Entry(entry.inode(), _kind_of_entry(entry), name))
        return sorted(found, key=lambda entry: entry.name)

    def mkdir(self, held: OpenFile, path: bytes) -> None:
        with self._place_to_change(held, path) as place, self._counting() as ledger:
            if ledger is not None and not _exists(place):
                ledger.require_file(place.depth)
                self._require_free()
            os.mkdir(place.name, 0o700, dir_fd=place.directory)
            if ledger is not None:
                ledger.made()

    def rmdir(self, held: OpenFile, path: bytes) -> None:
        with self._place_to_change(held, path) as place, self._counting() as ledger:
            found = os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)
            os.rmdir(place.name, dir_fd=place.directory)
            if ledger is not None:
                ledger.removed(found.st_ino, 0)

    def unlink(self, held: OpenFile, path: bytes) -> None:
        with self._place_to_change(held, path) as place, self._counting() as ledger:
            found = os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                raise FileRefusal(Errno.ISDIR)
            if place.is_directory:
                raise FileRefusal(Errno.NOTDIR)
            os.unlink(place.name, dir_fd=place.directory)
            if ledger is not None:
                ledger.removed(found.st_ino, found.st_size)

    def rename(self, source: OpenFile, old: bytes, target: OpenFile, new: bytes) -> None:
        """Rename inside this tree. A directory that would come to lie deeper is refused with XDEV, as by another disk.

        So no path becomes longer than the quota's depth, whatever is moved; programs then copy, as ``mv`` does.
        """
        if target.tree is not self:
            raise FileRefusal(Errno.XDEV)
        with (
            self._place_to_change(source, old) as here,
            self._place_to_change(target, new) as there,
            self._counting() as ledger,
        ):
            moved = os.stat(here.name, dir_fd=here.directory, follow_symlinks=False)
            is_directory = stat.S_ISDIR(moved.st_mode)
            if not is_directory and (here.is_directory or there.is_directory):
                raise FileRefusal(Errno.NOTDIR)
            if ledger is not None and is_directory and there.depth > here.depth:
                raise FileRefusal(Errno.XDEV)
            if ledger is not None and there.depth > ledger.quota.depth_max:
                raise FileRefusal(Errno.DQUOT)
            replaced = _found(there)
            os.rename(here.name, there.name, src_dir_fd=here.directory, dst_dir_fd=there.directory)
            if ledger is not None and replaced is not None and replaced.st_ino != moved.st_ino:
                ledger.removed(replaced.st_ino, 0 if stat.S_ISDIR(replaced.st_mode) else replaced.st_size)

    # --- inside

    @contextmanager
    def _place(self, directory: OpenFile, parsed: GuestPath) -> Iterator[Place]:
        """Open the parent of what a path leads to, for as long as the block runs."""
        _require_directory(directory)
        depth, (*above, name) = directory.depth + len(parsed.names), parsed.names
        if not above:
            yield Place(directory.descriptor, name, depth, parsed.is_directory)
            return
        parent = open_directory_beneath(directory.descriptor, tuple(above), device=self._device)
        try:
            yield Place(parent, name, depth, parsed.is_directory)
        finally:
            os.close(parent)

    @contextmanager
    def _place_to_change(self, directory: OpenFile, path: bytes) -> Iterator[Place]:
        parsed = parse_path(path)
        if not parsed.names:
            raise FileRefusal(Errno.BUSY)
        with self._place(directory, parsed) as place:
            if not self.writable:
                raise FileRefusal(Errno.ROFS)
            yield place

    @contextmanager
    def _counting(self) -> Iterator[Ledger | None]:
        if self.ledger is None:
            yield None
        else:
            with self.ledger.lock:
                yield self.ledger

    def _require_writable(self) -> None:
        if not self.writable:
            raise FileRefusal(Errno.ROFS)

    def _require_free(self) -> None:
        """The disk of a node holds more than guests' files: leave it the rest."""
        if self._free_bytes_min:
            disk = os.fstatvfs(self.root)
            if disk.f_bavail * disk.f_frsize < self._free_bytes_min:
                raise FileRefusal(Errno.NOSPC)


def _require_file(held: OpenFile) -> None:
    if held.kind is not Kind.FILE:
        raise FileRefusal(Errno.ISDIR)


def _require_directory(held: OpenFile) -> None:
    if held.kind is not Kind.DIRECTORY:
        raise FileRefusal(Errno.NOTDIR)


def _require_one_name(found: os.stat_result) -> None:
    """The other name of a file may lie outside of what may be written."""
    if found.st_nlink > 1:
        raise FileRefusal(Errno.PERM)


def _found(place: Place) -> os.stat_result | None:
    try:
        return os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _exists(place: Place) -> bool:
    return _found(place) is not None


def _kind_of_entry(entry: "os.DirEntry[str]") -> Kind:
    if entry.is_symlink():
        return Kind.LINK
    if entry.is_dir(follow_symlinks=False):
        return Kind.DIRECTORY
    return Kind.FILE if entry.is_file(follow_symlinks=False) else Kind.UNKNOWN


def _times(found: os.stat_result, access: tuple[int, int], modification: tuple[int, int]) -> tuple[int, int]:
    chosen = []
    for (what, moment), present in ((access, found.st_atime_ns), (modification, found.st_mtime_ns)):
        if what not in {0, TIME_NOW, TIME_SET} or moment > OFFSET_MAX:
            raise FileRefusal(Errno.INVAL)
        chosen.append(moment if what == TIME_SET else time.time_ns() if what == TIME_NOW else present)
    return chosen[0], chosen[1]
