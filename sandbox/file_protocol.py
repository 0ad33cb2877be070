"""What a worker asks of the node about files, and what it is answered: host calls of interface ``files``.

The messages are binary, because blocks of files are: base64 in JSON costs a third more bytes and a copy on either side.
Integers are little-endian. A request is a number of handles to close, these handles, then the operation's own record
and its texts; so that closing costs no round trip of its own. A reply is an error number of WASI snapshot-01 (0 is
success) and the operation's result. Both sides read the other's bytes as hostile.

| Function | Record | Then | Result |
|---|---|---|---|
| mounts | | | per mount: ``MOUNT``, path |
| open | ``OPEN``: directory, flags | path | ``OPENED`` |
| read | ``READ``: handle, offset, length | | bytes, fewer at the end of the file |
| write | ``WRITE``: handle, offset, append | bytes | ``WRITTEN`` |
| list | ``LIST``: handle, cookie | | per entry: ``ENTRY``, name; nothing is the end |
| stat | ``AT``: handle, follow | path, empty for the handle itself | ``STAT`` |
| times | ``TIMES``: handle, access, modification | path, empty for the handle itself | |
| resize | ``RESIZE``: handle, size | | |
| sync | ``AT`` | | |
| mkdir, rmdir, unlink | ``AT``: directory | path | |
| rename | ``RENAME``: directory, directory, bytes of the old path | old path, new path | |
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, IntFlag, unique
from struct import Struct
from struct import error as StructError  # noqa: N812 - the module gives its exception a small letter
from typing import Final

INTERFACE: Final = "files"
BLOCK_BYTES_MAX: Final = 262_144
"""Bytes of a file that one call carries; a frame of it costs both processes well under a millisecond."""
PATH_BYTES_MAX: Final = 4_096
NAME_BYTES_MAX: Final = 255
CLOSES_MAX: Final = 4_096
LIST_BYTES_MAX: Final = 65_536
MOUNTS_MAX: Final = 64
TIME_KEEP, TIME_NOW, TIME_SET = 0, 1, 2


@unique
class Errno(IntEnum):
    """Error numbers of WASI snapshot-01 that files use. The names are POSIX's without their E."""

    SUCCESS = 0
    TOO_BIG = 1
    ACCES = 2
    AGAIN = 6
    BADF = 8
    BUSY = 10
    DQUOT = 19
    EXIST = 20
    FBIG = 22
    ILSEQ = 25
    INVAL = 28
    IO = 29
    ISDIR = 31
    LOOP = 32
    MFILE = 33
    NAMETOOLONG = 37
    NOENT = 44
    NOSPC = 51
    NOSYS = 52
    NOTDIR = 54
    NOTEMPTY = 55
    NOTSUP = 58
    OVERFLOW = 61
    PERM = 63
    ROFS = 69
    TXTBSY = 74
    XDEV = 75


@unique
class Kind(IntEnum):
    """What lies at a path, numbered as WASI snapshot-01 does. Everything but directories and files is UNKNOWN."""

    UNKNOWN = 0
    DIRECTORY = 3
    FILE = 4
    LINK = 7


class Open(IntFlag):
    """How something is opened."""

    CREATE = 1
    DIRECTORY = 2
    EXCLUSIVE = 4
    TRUNCATE = 8
    READ = 16
    WRITE = 32


CLOSES: Final = Struct("<H")
HANDLE: Final = Struct("<I")
MOUNT: Final = Struct("<IBH")  # handle, writable, bytes of the path
OPEN: Final = Struct("<IB")
OPENED: Final = Struct("<IB")  # handle, kind
READ: Final = Struct("<IQI")
WRITE: Final = Struct("<IQB")
WRITTEN: Final = Struct("<IQ")  # bytes written, offset after them
LIST: Final = Struct("<IQ")
ENTRY: Final = Struct("<QBH")  # inode, kind, bytes of the name
AT: Final = Struct("<IB")  # handle, whether a link at the end of the path is followed (there, it is refused)
TIMES: Final = Struct("<IBQBQ")  # handle, then twice: what to do, nanoseconds since 1970
RESIZE: Final = Struct("<IQ")
RENAME: Final = Struct("<IIH")
STAT: Final = Struct("<BIQQQQQ")  # kind, device, inode, size, access, modification, change (nanoseconds since 1970)
_REPLY: Final = Struct("<H")


class ProtocolError(Exception):
    """A message does not parse."""


class FileRefusal(Exception):  # noqa: N818 - an answer to the guest, not an error of the node
    """A file operation is answered with an error number; the invocation goes on."""

    def __init__(self, errno: Errno) -> None:
        super().__init__(errno.name)
        self.errno = errno


@dataclass(frozen=True, slots=True)
class Stat:
    """What a guest is told of a file. ``device`` numbers the mount: the host's own number is nobody's business."""

    kind: Kind
    device: int
    inode: int
    size: int
    accessed_ns: int = 0
    modified_ns: int = 0
    changed_ns: int = 0

    def pack(self) -> bytes:
        """Return the result of ``stat``."""
        return STAT.pack(
            self.kind, self.device, self.inode, self.size, self.accessed_ns, self.modified_ns, self.changed_ns
        )

    @classmethod
    def unpack(cls, data: bytes) -> "Stat":
        """Read the result of ``stat``.

        Raises:
            ProtocolError: it does not parse.
        """
        kind, *numbers = unpack(STAT, data)
        return cls(kind_of(kind), *numbers)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a directory."""

    inode: int
    kind: Kind
    name: bytes


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory that the guest finds at ``path``."""

    handle: int
    writable: bool
    path: bytes


def pack_request(closes: Iterable[int], record: bytes) -> bytes:
    """Return a request; ``record`` is the operation's own record and texts."""
    handles = [HANDLE.pack(handle) for handle in closes]
    return b"".join((CLOSES.pack(len(handles)), *handles, record))


def read_request(argument: bytes) -> tuple[tuple[int, ...], bytes]:
    """Return the handles to close and the rest.

    Raises:
        ProtocolError: it does not parse.
    """
    (count,) = unpack(CLOSES, argument)
    end = CLOSES.size + count * HANDLE.size
    if count > CLOSES_MAX or end > len(argument):
        raise ProtocolError(f"expected at most {CLOSES_MAX} handles to close, all of them there, got {count}")
    return tuple(handle for (handle,) in HANDLE.iter_unpack(argument[CLOSES.size : end])), argument[end:]


def pack_reply(errno: Errno, result: bytes = b"") -> bytes:
    """Return a reply."""
    return _REPLY.pack(errno) + result


def errno_of(answer: bytes) -> Errno:
    """Return the error number of a reply; one that is none counts as a failure of input and output."""
    try:
        return Errno(_REPLY.unpack_from(answer)[0])
    except (StructError, ValueError):
        return Errno.IO


def read_reply(answer: bytes) -> bytes:
    """Return the result.

    Raises:
        FileRefusal: the node refused.
    """
    if (errno := errno_of(answer)) is not Errno.SUCCESS:
        raise FileRefusal(errno)
    return answer[_REPLY.size :]


def unpack(layout: Struct, data: bytes) -> tuple[int, ...]:
    """Read a record at the start of ``data``.

    Raises:
        ProtocolError: it is shorter.
    """
    try:
        return layout.unpack_from(data)
    except StructError as error:
        raise ProtocolError(str(error)) from None


def pack_mounts(mounts: Iterable[Mount]) -> bytes:
    """Return the result of ``mounts``."""
    return b"".join(MOUNT.pack(each.handle, each.writable, len(each.path)) + each.path for each in mounts)


def read_mounts(data: bytes) -> tuple[Mount, ...]:
    """Read the result of ``mounts``.

    Raises:
        ProtocolError: it does not parse.
    """
    mounts: list[Mount] = []
    while data:
        handle, writable, length = unpack(MOUNT, data)
        path, data = _cut(data, MOUNT.size, length)
        mounts.append(Mount(handle, bool(writable), path))
        if len(mounts) > MOUNTS_MAX:
            raise ProtocolError(f"expected at most {MOUNTS_MAX} mounts, got more")
    return tuple(mounts)


def pack_entry(entry: Entry) -> bytes:
    """Return one entry of the result of ``list``."""
    return ENTRY.pack(entry.inode, entry.kind, len(entry.name)) + entry.name


def read_entries(data: bytes) -> list[Entry]:
    """Read the result of ``list``.

    Raises:
        ProtocolError: it does not parse.
    """
    entries: list[Entry] = []
    while data:
        inode, kind, length = unpack(ENTRY, data)
        name, data = _cut(data, ENTRY.size, length)
        entries.append(Entry(inode, kind_of(kind), name))
    return entries


def kind_of(number: int) -> Kind:
    """Return the kind with this number.

    Raises:
        ProtocolError: there is none.
    """
    try:
        return Kind(number)
    except ValueError as error:
        raise ProtocolError(str(error)) from None


def _cut(data: bytes, start: int, length: int) -> tuple[bytes, bytes]:
    end = start + length
    if end > len(data):
        raise ProtocolError(f"expected {end} bytes, got {len(data)}")
    return data[start:end], data[end:]
