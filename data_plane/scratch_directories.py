"""Scratch directories on the node's disk: made when they are first used, measured, and removed with what they are for.

    <directory>/agents/<export>/<tenant>/<domain>/<template>/<agent>.<creation>, or _ for invocations without one
    <directory>/invocations/<random>       gone when the invocation has ended, or with the next start of the node
    <directory>/trash/<random>             what is being removed

Everything here blocks: it runs in threads. The account of a directory is kept while it is used, and for a while
afterwards; otherwise it is taken anew from the disk.
"""

import os
import secrets
import shutil
import stat
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandbox.file_quota import Ledger, Quota
from sandbox.file_tree import Tree

IDLE_LEDGERS_MAX: Final = 1_000


@dataclass(slots=True)
class _Kept:
    ledger: Ledger
    users: int = 0


class ScratchDirectories:
    """Hands out trees over scratch directories; `release` gives one back."""

    def __init__(self, directory: Path, *, free_bytes_min: int) -> None:
        self._directory, self._free_bytes_min = directory, free_bytes_min
        self._lock = threading.Lock()
        self._kept: OrderedDict[Path, _Kept] = OrderedDict()

    def start(self) -> None:
        """Make the directories, and remove what an earlier run left of invocations."""
        for name in ("agents", "invocations", "trash"):
            (self._directory / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("invocations", "trash"):
            for left in (self._directory / name).iterdir():
                _remove(left)

    def path_of_agent(self, export: str, folders: tuple[str, ...]) -> Path:
        return self._directory.joinpath("agents", export, *folders)

    def path_of_invocation(self) -> Path:
        """Return a new place."""
        return self._directory / "invocations" / secrets.token_hex(16)

    def open(self, path: Path, quota: Quota, *, number: int, writable: bool) -> Tree:
        """Open the directory at ``path`` as mount ``number``; it is made and measured if need be."""
        with self._lock:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                kept = self._kept.get(path)
                if kept is None or kept.ledger.quota != quota:
                    kept = self._kept[path] = _Kept(measure(root, quota))
                kept.users += 1
                self._kept.move_to_end(path)
                self._forget_idle()
                ledger, free = kept.ledger, self._free_bytes_min
                return Tree(root, writable=writable, number=number, ledger=ledger, free_bytes_min=free)
            except BaseException:
                os.close(root)
                raise

    def release(self, path: Path) -> None:
        """A tree over ``path`` was closed."""
        with self._lock:
            kept = self._kept.get(path)
            if kept is not None:
                kept.users -= 1

    def remove(self, path: Path) -> None:
        """Remove the directory at ``path``, if there is one. Whoever still uses it keeps what it holds open."""
        trash = self._directory / "trash" / secrets.token_hex(16)
        with self._lock:
            self._kept.pop(path, None)
            try:
                path.rename(trash)
            except FileNotFoundError:
                return
        _remove(trash)

    def agents(self) -> list[tuple[Path, tuple[str, ...]]]:
        """Return every agent's directory with its folders below the export."""
        base = self._directory / "agents"
        return [(path, path.relative_to(base).parts[1:]) for path in base.glob("*/*/*/*/*")]

    def _forget_idle(self) -> None:
        idle = [path for path, kept in self._kept.items() if kept.users <= 0]
        for path in idle[: max(0, len(idle) - IDLE_LEDGERS_MAX)]:
            del self._kept[path]


def measure(root: int, quota: Quota) -> Ledger:
    """Add up what lies in a directory."""
    bytes_used = files_used = 0
    for _, directories, files, descriptor in os.fwalk(".", dir_fd=root, follow_symlinks=False):
        files_used += len(directories) + len(files)
        for name in files:
            found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode):
                bytes_used += found.st_size
    return Ledger(quota, bytes_used=bytes_used, files_used=files_used)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
