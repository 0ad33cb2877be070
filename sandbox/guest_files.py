"""The files of one invocation as the worker knows them: handles of the node, positions, and blocks read ahead.

Both ABIs stand on this. The worker opens nothing: each operation is one host call of interface ``files`` while the
guest is suspended. What a guest reads in small pieces is fetched in blocks; whatever the guest changes makes all blocks
stale. What others change meanwhile may be seen a block late, as with any buffered file.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from sandbox.file_protocol import (
    BLOCK_BYTES_MAX,
    OPENED,
    READ,
    WRITE,
    WRITTEN,
    Entry,
    Errno,
    FileRefusal,
    Kind,
    Mount,
    ProtocolError,
    Stat,
    kind_of,
    pack_request,
    read_entries,
    read_mounts,
    read_reply,
    unpack,
)

READ_AHEAD_MIN: Final = 4_096
READ_AHEAD_MAX: Final = BLOCK_BYTES_MAX
DESCRIPTORS_MAX: Final = 1_024
OFFSET_MAX: Final = (1 << 63) - 1
T = TypeVar("T")


@dataclass(slots=True)
class Block:
    """Bytes of a file as they were before change number ``changes``. ``ends``: the file ended after them."""

    start: int
    data: bytes
    changes: int
    ends: bool

    @property
    def end(self) -> int:
        return self.start + len(self.data)


@dataclass(slots=True)
class File:
    """Something that the guest holds open, by any number of descriptors and streams. ``mount``: a preopened one."""

    handle: int
    kind: Kind
    readable: bool = True
    writable: bool = False
    mount: bytes | None = None
    holders: int = 1
    block: Block | None = None
    ahead: int = READ_AHEAD_MIN
    entries_at: int = 0
    entries: list[Entry] = field(default_factory=list)


class GuestFiles:
    """What is open, and what is to be closed with the next request."""

    __slots__ = ("_closes", "_seen", "changes", "mounts")

    def __init__(self) -> None:
        self.mounts: tuple[File, ...] | None = None
        self.changes = 0
        self._closes: list[int] = []
        self._seen: tuple[int, bytes, bool, Stat] | None = None

    def request(self, record: bytes, *, changes: bool = False) -> bytes:
        """Return the argument of a host call. ``changes``: what was read before is stale from now on."""
        if changes:
            self.changes += 1
        self._seen = None
        closes, self._closes = self._closes, []
        return pack_request(closes, record)

    def let_go(self, file: File) -> None:
        """One holder less; the last one closes it, with the next request or the invocation's end."""
        file.holders -= 1
        if file.holders == 0 and file.mount is None:
            self._closes.append(file.handle)

    # --- results

    def mounted(self, answer: bytes) -> tuple[File, ...]:
        """Take in the answer to ``mounts``."""
        if self.mounts is None:
            self.mounts = tuple([_mount(each) for each in _read(read_mounts, answer)])
        return self.mounts

    def opened(self, answer: bytes, *, readable: bool, writable: bool) -> File:
        """Take in the answer to ``open``."""
        handle, kind = _read(_opened, answer)
        return File(handle, kind, readable, writable)

    def written(self, answer: bytes, length: int) -> tuple[int, int]:
        """Return how many bytes were written, of ``length``, and the offset after them."""
        count, position = _read(_written, answer)
        if count > length:
            raise FileRefusal(Errno.IO)
        return count, position

    def listed(self, file: File, cookie: int, answer: bytes) -> list[Entry]:
        """Keep a block of a directory."""
        file.entries_at, file.entries = cookie, _read(read_entries, answer)
        return file.entries

    def described(self, handle: int, path: bytes, follow: bool, answer: bytes) -> Stat:  # noqa: FBT001 - as asked
        """Return the answer to ``stat``, and keep it for whoever asks the very same next."""
        found = _read(Stat.unpack, answer)
        self._seen = (handle, path, follow, found)
        return found

    def seen(self, handle: int, path: bytes, follow: bool) -> Stat | None:  # noqa: FBT001 - as asked
        """What was just described, once: WASI 0.2 asks twice for one ``stat`` of POSIX."""
        seen, self._seen = self._seen, None
        return seen[3] if seen is not None and seen[:3] == (handle, path, follow) else None

    # --- reading

    def read_at_once(self, file: File, offset: int, length: int) -> bytes | None:
        """Return what a block holds of ``length`` bytes at ``offset``; empty where the file ended, None to ask."""
        block = file.block
        if block is None or block.changes != self.changes or not block.start <= offset <= block.end:
            return None
        at = offset - block.start
        data = block.data[at : at + length]
        if data:
            return data
        if not block.ends:
            return None
        file.block = None  # told once: the next one looks whether the file has grown
        return b""

    def read_record(self, file: File, offset: int, length: int) -> bytes:
        """Return the record that asks for ``length`` bytes or more: reading on in order fetches longer and longer.

        Raises:
            FileRefusal: INVAL for an offset that no file has.
        """
        if offset + length > OFFSET_MAX:
            raise FileRefusal(Errno.INVAL)
        in_order = offset == 0 if file.block is None else offset == file.block.end
        file.ahead = min(file.ahead * 4, READ_AHEAD_MAX) if in_order else READ_AHEAD_MIN
        return READ.pack(file.handle, offset, min(max(length, file.ahead), BLOCK_BYTES_MAX))

    def received(self, file: File, offset: int, record: bytes, answer: bytes, length: int) -> bytes:
        """Keep the block that answers ``record`` and return ``length`` bytes of it at most; empty is the end."""
        data = read_reply(answer)
        wanted: int = READ.unpack_from(record)[2]
        if len(data) > wanted:
            raise FileRefusal(Errno.IO)
        file.block = Block(offset, data, self.changes, ends=0 < len(data) < wanted)
        return data[:length]


def write_record(file: File, offset: int, data: bytes, *, append: bool) -> bytes:
    """Return the record that writes ``data``."""
    return WRITE.pack(file.handle, offset, append) + data


def done(answer: bytes) -> None:
    """Take in an answer without a result.

    Raises:
        FileRefusal: the node refused.
    """
    read_reply(answer)


def _mount(mount: Mount) -> File:
    return File(mount.handle, Kind.DIRECTORY, writable=mount.writable, mount=mount.path)


def _opened(result: bytes) -> tuple[int, Kind]:
    handle, kind = unpack(OPENED, result)
    return handle, kind_of(kind)


def _written(result: bytes) -> tuple[int, int]:
    count, position = unpack(WRITTEN, result)
    return count, position


def _read(parse: Callable[[bytes], T], answer: bytes) -> T:
    """Read the result of an answer; one out of shape is the node's fault, and told as a failure of input and output."""
    try:
        return parse(read_reply(answer))
    except ProtocolError:
        raise FileRefusal(Errno.IO) from None
