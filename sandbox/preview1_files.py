"""Files of preview 1: the guest's descriptors from 3 on, over the handles of the node.

A method returns an errno, or a ``FileAsk``: then the guest is suspended until the node has answered, and ``done`` puts
the results in place. Pointers are checked before anything is asked: the guest's memory can only grow meanwhile. Until
the guest asked for the first directory that is open from the start (every C library does at start), it has none.
"""

from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Final, Protocol

from sandbox.core_module import GuestMemory
from sandbox.file_protocol import (
    AT,
    BLOCK_BYTES_MAX,
    LIST,
    OPEN,
    PATH_BYTES_MAX,
    RENAME,
    RESIZE,
    TIME_KEEP,
    TIME_NOW,
    TIME_SET,
    TIMES,
    Entry,
    Errno,
    FileRefusal,
    Kind,
    Open,
    Stat,
)
from sandbox.guest_files import DESCRIPTORS_MAX, File, GuestFiles, done, write_record

FIRST: Final = 3
IOVECS_MAX: Final = 1_024
_U32 = Struct("<I")
_U64 = Struct("<Q")
_IOVEC = Struct("<II")
_FDSTAT = Struct("<BxHxxxxQQ")
_FILESTAT = Struct("<QQB7xQQQQQ")
_DIRENT = Struct("<QQIB3x")
_PRESTAT = Struct("<B3xI")
_RIGHTS_ALL: Final = (1 << 30) - 1
_RIGHT_READ, _RIGHT_WRITE = 1 << 1, 1 << 6
_APPEND: Final = 1
_OFLAGS: Final = int(Open.CREATE | Open.DIRECTORY | Open.EXCLUSIVE | Open.TRUNCATE)
_SIGN: Final = 1 << 63
_OFFSET_MAX: Final = _SIGN - 1
_SET, _CURRENT, _END = 0, 1, 2
_FOLLOW: Final = 1


class Guest(Protocol):
    """Whose files these are."""

    memory: GuestMemory


@dataclass(slots=True)
class FileAsk:
    """A host call; ``done`` puts what its answer says in place and returns the errno."""

    function: str
    argument: bytes
    done: Callable[[bytes], int]


Served = int | FileAsk


@dataclass(slots=True)
class Descriptor:
    """A number that the guest uses. What is open, and where in it: every ``path_open`` makes a file of its own."""

    file: File
    position: int = 0
    append: bool = False


class Preview1Files:
    """The table of descriptors. Names and arguments of the methods are those of WASI snapshot-01."""

    __slots__ = ("_files", "_guest", "_table")

    def __init__(self, guest: Guest) -> None:
        self._guest, self._files = guest, GuestFiles()
        self._table: dict[int, Descriptor] = {}

    def holds(self, fd: int) -> bool:
        """Say whether this descriptor is open."""
        return fd in self._table

    # --- descriptors

    def prestat_get(self, fd: int, at: int) -> Served:
        self._guest.memory.reach(at, _PRESTAT.size)
        if self._files.mounts is not None:
            return self._prestat(fd, at)

        def mounted(answer: bytes) -> int:
            for number, file in enumerate(self._files.mounted(answer), start=FIRST):
                self._table[number] = Descriptor(file)
            return self._prestat(fd, at)

        return self._ask("mounts", b"", mounted)

    def _prestat(self, fd: int, at: int) -> int:
        mount = self._mount(fd)
        _PRESTAT.pack_into(self._guest.memory.reach(at, _PRESTAT.size), at, 0, len(mount))
        return Errno.SUCCESS

    def prestat_dir_name(self, fd: int, at: int, length: int) -> Served:
        mount = self._mount(fd)
        if length < len(mount):
            return Errno.NAMETOOLONG
        self._put(at, mount)
        return Errno.SUCCESS

    def _mount(self, fd: int) -> bytes:
        mount = self._descriptor(fd).file.mount
        if mount is None:
            raise FileRefusal(Errno.BADF)
        return mount

    def close(self, fd: int) -> Served:
        self._files.let_go(self._descriptor(fd).file)
        del self._table[fd]
        return Errno.SUCCESS

    def renumber(self, fd: int, to: int) -> Served:
        moved, replaced = self._descriptor(fd), self._descriptor(to)
        if fd != to:
            self._files.let_go(replaced.file)
            self._table[to] = moved
            del self._table[fd]
        return Errno.SUCCESS

    def fdstat_get(self, fd: int, at: int) -> Served:
        descriptor = self._descriptor(fd)
        file, rights = descriptor.file, _RIGHTS_ALL
        if file.kind is Kind.FILE:
            rights &= ~(_RIGHT_READ | _RIGHT_WRITE)
            rights |= (_RIGHT_READ if file.readable else 0) | (_RIGHT_WRITE if file.writable else 0)
        flags = _APPEND if descriptor.append else 0
        _FDSTAT.pack_into(self._guest.memory.reach(at, _FDSTAT.size), at, file.kind, flags, rights, _RIGHTS_ALL)
        return Errno.SUCCESS

    def fdstat_set_flags(self, fd: int, flags: int) -> Served:
        self._descriptor(fd).append = bool(flags & _APPEND)
        return Errno.SUCCESS

    def no_change_of_rights(self, fd: int, _base: int, _inheriting: int) -> Served:
        self._descriptor(fd)
        return Errno.NOTSUP

    # --- reading and writing

    def read(self, fd: int, vectors_at: int, count: int, total_at: int) -> Served:
        descriptor = self._descriptor(fd)

        def moved(length: int) -> None:
            descriptor.position += length

        return self._read(descriptor.file, vectors_at, count, descriptor.position, total_at, moved)

    def pread(self, fd: int, vectors_at: int, count: int, offset: int, total_at: int) -> Served:
        return self._read(self._descriptor(fd).file, vectors_at, count, offset, total_at, _stay)

    def _read(
        self, file: File, vectors_at: int, count: int, offset: int, total_at: int, moved: Callable[[int], None]
    ) -> Served:
        _require_file(file)
        if not file.readable:
            return Errno.BADF
        vectors = self._vectors(vectors_at, count)
        self._guest.memory.reach(total_at, 4)
        length = min(sum([length for _, length in vectors]), BLOCK_BYTES_MAX)

        def put(data: bytes) -> int:
            position = 0
            for at, room in vectors:
                piece = data[position : position + room]
                self._put(at, piece)
                position += len(piece)
            _U32.pack_into(self._guest.memory.view, total_at, position)
            moved(position)
            return Errno.SUCCESS

        at_once = b"" if length == 0 else self._files.read_at_once(file, offset, length)
        if at_once is not None:
            return put(at_once)
        record = self._files.read_record(file, offset, length)
        return self._ask("read", record, lambda answer: put(self._files.received(file, offset, record, answer, length)))

    def write(self, fd: int, vectors_at: int, count: int, total_at: int) -> Served:
        descriptor = self._descriptor(fd)

        def moved(position: int) -> None:
            descriptor.position = position

        return self._write(descriptor, vectors_at, count, descriptor.position, total_at, moved)

    def pwrite(self, fd: int, vectors_at: int, count: int, offset: int, total_at: int) -> Served:
        return self._write(self._descriptor(fd), vectors_at, count, offset, total_at, _stay)

    def _write(
        self,
        descriptor: Descriptor,
        vectors_at: int,
        count: int,
        offset: int,
        total_at: int,
        moved: Callable[[int], None],
    ) -> Served:
        file, memory = descriptor.file, self._guest.memory
        _require_file(file)
        if not file.writable:
            return Errno.BADF
        memory.reach(total_at, 4)
        data = bytearray()
        for at, length in self._vectors(vectors_at, count):
            data += memory.view[at : at + min(length, BLOCK_BYTES_MAX - len(data))]

        def written(answer: bytes) -> int:
            total, position = self._files.written(answer, len(data))
            _U32.pack_into(memory.reach(total_at, 4), total_at, total)
            moved(position)
            return Errno.SUCCESS

        record = write_record(file, offset, bytes(data), append=descriptor.append)
        return self._ask("write", record, written, changes=True)

    def seek(self, fd: int, offset: int, whence: int, position_at: int) -> Served:
        descriptor, file = self._descriptor(fd), self._descriptor(fd).file
        _require_file(file)
        memory, signed = self._guest.memory, offset - (1 << 64) if offset & _SIGN else offset
        memory.reach(position_at, 8)

        def move_from(start: int) -> int:
            if not 0 <= start + signed <= _OFFSET_MAX:
                return Errno.INVAL
            descriptor.position = start + signed
            _U64.pack_into(memory.reach(position_at, 8), position_at, descriptor.position)
            return Errno.SUCCESS

        if whence == _SET:
            return move_from(0)
        if whence == _CURRENT:
            return move_from(descriptor.position)
        if whence != _END:
            return Errno.INVAL
        return self._stat(file, b"", follow=False, told=lambda found: move_from(found.size))

    def tell(self, fd: int, position_at: int) -> Served:
        descriptor = self._descriptor(fd)
        _require_file(descriptor.file)
        _U64.pack_into(self._guest.memory.reach(position_at, 8), position_at, descriptor.position)
        return Errno.SUCCESS

    def advise(self, fd: int, _offset: int, _length: int, _advice: int) -> Served:
        self._descriptor(fd)
        return Errno.SUCCESS

    def allocate(self, fd: int, _offset: int, _length: int) -> Served:
        self._descriptor(fd)
        return Errno.NOTSUP

    def sync(self, fd: int) -> Served:
        file = self._descriptor(fd).file
        return self._ask("sync", AT.pack(file.handle, 0)) if file.writable and file.kind is Kind.FILE else Errno.SUCCESS

    def set_size(self, fd: int, size: int) -> Served:
        file = self._descriptor(fd).file
        if file.kind is not Kind.FILE or not file.writable:
            return Errno.INVAL
        return self._ask("resize", RESIZE.pack(file.handle, size), changes=True)

    # --- directories and names

    def open(
        self,
        fd: int,
        _lookup: int,
        path_at: int,
        path_length: int,
        oflags: int,
        rights: int,
        _inheriting: int,
        fdflags: int,
        opened_at: int,
    ) -> Served:
        directory, path = self._descriptor(fd).file, self._path(path_at, path_length)
        memory = self._guest.memory
        memory.reach(opened_at, 4)
        if oflags & ~_OFLAGS:
            return Errno.INVAL
        if len(self._table) >= DESCRIPTORS_MAX:
            return Errno.MFILE
        flags = Open(oflags)
        if rights & _RIGHT_READ:
            flags |= Open.READ
        if rights & _RIGHT_WRITE and not flags & Open.DIRECTORY:
            flags |= Open.WRITE

        def opened(answer: bytes) -> int:
            readable, writable = bool(flags & Open.READ), bool(flags & Open.WRITE)
            file = self._files.opened(answer, readable=readable, writable=writable)
            number = FIRST
            while number in self._table:
                number += 1
            self._table[number] = Descriptor(file, append=bool(fdflags & _APPEND))
            _U32.pack_into(memory.reach(opened_at, 4), opened_at, number)
            return Errno.SUCCESS

        record = OPEN.pack(directory.handle, flags) + path
        return self._ask("open", record, opened, changes=bool(flags & Open.TRUNCATE))

    def readdir(self, fd: int, at: int, length: int, cookie: int, used_at: int) -> Served:
        file, memory = self._descriptor(fd).file, self._guest.memory
        if file.kind is not Kind.DIRECTORY:
            return Errno.NOTDIR
        memory.reach(at, length)
        memory.reach(used_at, 4)

        def put(entries: list[Entry]) -> int:
            packed = bytearray()
            for number, entry in enumerate(entries, start=cookie + 1):
                if len(packed) >= length:
                    break
                packed += _DIRENT.pack(number, entry.inode, len(entry.name), entry.kind) + entry.name
            used = min(len(packed), length)
            self._put(at, bytes(packed[:used]))
            _U32.pack_into(memory.reach(used_at, 4), used_at, used)
            return Errno.SUCCESS

        known = file.entries[cookie - file.entries_at :] if cookie > file.entries_at else []
        if cookie and known:
            return put(known)
        record = LIST.pack(file.handle, cookie)
        return self._ask("list", record, lambda answer: put(self._files.listed(file, cookie, answer)))

    def filestat_get(self, fd: int, at: int) -> Served:
        file = self._descriptor(fd).file
        self._guest.memory.reach(at, _FILESTAT.size)
        return self._stat(file, b"", follow=False, told=lambda found: self._put_stat(found, at))

    def path_filestat_get(self, fd: int, lookup: int, path_at: int, path_length: int, at: int) -> Served:
        file, path = self._descriptor(fd).file, self._path(path_at, path_length)
        self._guest.memory.reach(at, _FILESTAT.size)
        follow = bool(lookup & _FOLLOW)
        return self._stat(file, path, follow=follow, told=lambda found: self._put_stat(found, at))

    def _stat(self, file: File, path: bytes, *, follow: bool, told: Callable[[Stat], int]) -> Served:
        record = AT.pack(file.handle, follow) + path
        return self._ask("stat", record, lambda answer: told(self._files.described(file.handle, path, follow, answer)))

    def _put_stat(self, found: Stat, at: int) -> int:
        times = (found.accessed_ns, found.modified_ns, found.changed_ns)
        packed = _FILESTAT.pack(found.device, found.inode, found.kind, 1, found.size, *times)
        self._put(at, packed)
        return Errno.SUCCESS

    def set_times(self, fd: int, access_ns: int, modification_ns: int, flags: int) -> Served:
        file = self._descriptor(fd).file
        return self._ask("times", _times_record(file, access_ns, modification_ns, flags))

    def path_set_times(
        self, fd: int, _lookup: int, path_at: int, path_length: int, access_ns: int, modification_ns: int, flags: int
    ) -> Served:
        file, path = self._descriptor(fd).file, self._path(path_at, path_length)
        return self._ask("times", _times_record(file, access_ns, modification_ns, flags) + path)

    def mkdir(self, fd: int, path_at: int, path_length: int) -> Served:
        return self._name("mkdir", fd, path_at, path_length)

    def rmdir(self, fd: int, path_at: int, path_length: int) -> Served:
        return self._name("rmdir", fd, path_at, path_length)

    def unlink(self, fd: int, path_at: int, path_length: int) -> Served:
        return self._name("unlink", fd, path_at, path_length)

    def _name(self, function: str, fd: int, path_at: int, path_length: int) -> Served:
        file, path = self._descriptor(fd).file, self._path(path_at, path_length)
        return self._ask(function, AT.pack(file.handle, 0) + path)

    def rename(self, fd: int, old_at: int, old_length: int, new_fd: int, new_at: int, new_length: int) -> Served:
        source, target = self._descriptor(fd).file, self._descriptor(new_fd).file
        old, new = self._path(old_at, old_length), self._path(new_at, new_length)
        return self._ask("rename", RENAME.pack(source.handle, target.handle, len(old)) + old + new)

    # --- inside

    def _ask(
        self, function: str, record: bytes, result: Callable[[bytes], int] | None = None, *, changes: bool = False
    ) -> FileAsk:
        def answered(answer: bytes) -> int:
            try:
                if result is not None:
                    return result(answer)
                done(answer)
            except FileRefusal as refusal:
                return refusal.errno
            return Errno.SUCCESS

        return FileAsk(function, self._files.request(record, changes=changes), answered)

    def _descriptor(self, fd: int) -> Descriptor:
        descriptor = self._table.get(fd)
        if descriptor is None:
            raise FileRefusal(Errno.BADF)
        return descriptor

    def _path(self, at: int, length: int) -> bytes:
        if length > PATH_BYTES_MAX:
            raise FileRefusal(Errno.NAMETOOLONG)
        if length == 0:  # to the node, no path means the handle itself
            raise FileRefusal(Errno.NOENT)
        return bytes(self._guest.memory.reach(at, length)[at : at + length])

    def _vectors(self, at: int, count: int) -> list[tuple[int, int]]:
        if count > IOVECS_MAX:
            raise FileRefusal(Errno.INVAL)
        memory = self._guest.memory
        vectors = list(_IOVEC.iter_unpack(memory.reach(at, 8 * count)[at : at + 8 * count]))
        for pointer, length in vectors:
            memory.reach(pointer, length)
        return vectors

    def _put(self, at: int, data: bytes) -> None:
        self._guest.memory.reach(at, len(data))[at : at + len(data)] = data


def _stay(_position: int) -> None:
    """``pread`` and ``pwrite`` leave the position where it is."""


def _require_file(file: File) -> None:
    if file.kind is not Kind.FILE:
        raise FileRefusal(Errno.ISDIR)


def _times_record(file: File, access_ns: int, modification_ns: int, flags: int) -> bytes:
    what = []
    for at, now in ((1, 2), (4, 8)):
        if flags & at and flags & now:
            raise FileRefusal(Errno.INVAL)
        what.append(TIME_SET if flags & at else TIME_NOW if flags & now else TIME_KEEP)
    return TIMES.pack(file.handle, what[0], access_ns, what[1], modification_ns)
