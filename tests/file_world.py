"""Sessions over real directories, and requests to them as a worker makes them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.file_protocol import (
    AT,
    LIST,
    OPEN,
    OPENED,
    READ,
    RENAME,
    RESIZE,
    TIMES,
    WRITE,
    WRITTEN,
    Errno,
    FileRefusal,
    Open,
    Stat,
    pack_request,
    read_entries,
    read_mounts,
    read_reply,
    unpack,
)
from sandbox.file_quota import Ledger, Quota
from sandbox.file_session import FileLimits, FileSession, MountPoint
from sandbox.file_tree import Tree

READ_ONLY = Open.READ
NEW = Open.READ | Open.WRITE | Open.CREATE
QUOTA = Quota(bytes_max=1_000, files_max=8, depth_max=4)


@dataclass
class Files:
    """One session as a guest's worker uses it. Refusals are raised as `FileRefusal`."""

    session: FileSession
    roots: dict[str, int] = field(default_factory=dict)
    closes: list[int] = field(default_factory=list)

    def ask(self, function: str, record: bytes = b"") -> bytes:
        closes = list(self.closes)
        self.closes.clear()
        return read_reply(self.session.perform(function, pack_request(closes, record)))

    def mounts(self) -> dict[str, int]:
        self.roots = {each.path.decode(): each.handle for each in read_mounts(self.ask("mounts"))}
        return self.roots

    def open(self, root: int, path: str | bytes, flags: Open = READ_ONLY) -> int:
        return unpack(OPENED, self.ask("open", OPEN.pack(root, flags) + encoded(path)))[0]

    def read(self, handle: int, length: int = 1_000, offset: int = 0) -> bytes:
        return self.ask("read", READ.pack(handle, offset, length))

    def write(self, handle: int, data: bytes, offset: int = 0, *, append: bool = False) -> int:
        return unpack(WRITTEN, self.ask("write", WRITE.pack(handle, offset, append) + data))[0]

    def list(self, handle: int, cookie: int = 0) -> list[str]:
        return [each.name.decode() for each in read_entries(self.ask("list", LIST.pack(handle, cookie)))]

    def stat(self, handle: int, path: str | bytes = "", *, follow: bool = True) -> Stat:
        return Stat.unpack(self.ask("stat", AT.pack(handle, follow) + encoded(path)))

    def resize(self, handle: int, size: int) -> None:
        self.ask("resize", RESIZE.pack(handle, size))

    def times(self, handle: int, path: str, modified_ns: int) -> None:
        self.ask("times", TIMES.pack(handle, 0, 0, 2, modified_ns) + encoded(path))

    def at(self, function: str, root: int, path: str | bytes) -> None:
        self.ask(function, AT.pack(root, 0) + encoded(path))

    def rename(self, source: int, old: str, target: int, new: str) -> None:
        self.ask("rename", RENAME.pack(source, target, len(old.encode())) + old.encode() + new.encode())

    def refusal(self, name: str, *arguments: object, **more: object) -> Errno:
        """Call a method that must be refused, and return why."""
        try:
            getattr(self, name)(*arguments, **more)
        except FileRefusal as refusal:
            return refusal.errno
        raise AssertionError(f"expected {name}{arguments} to be refused")


def encoded(path: str | bytes) -> bytes:
    return path if isinstance(path, bytes) else path.encode()


@contextmanager
def files(
    exported: Path | None = None,
    scratch: Path | None = None,
    *,
    ledger: Ledger | None = None,
    limits: FileLimits | None = None,
) -> Iterator[Files]:
    """A session with an export at ``/data`` and scratch at ``/scratch``, already mounted."""
    points = [MountPoint("/absent", None)]
    if exported is not None:
        points.append(MountPoint("/data", lambda number: Tree(directory(exported), writable=False, number=number)))
    if scratch is not None:
        account = ledger or Ledger(QUOTA)
        points.append(
            MountPoint(
                "/scratch", lambda number: Tree(directory(scratch), writable=True, number=number, ledger=account)
            )
        )
    session = FileSession(points, limits or FileLimits(), on_close=lambda: None)
    made = Files(session)
    made.mounts()
    try:
        yield made
    finally:
        session.close()


def directory(path: Path) -> int:
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
