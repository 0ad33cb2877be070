"""What a scratch directory may hold, and the account of what it holds.

The account is a sum over what lies on the disk, taken anew whenever nobody had it in memory: it needs no storage of its
own, and a crash cannot make it wrong. The size of a file counts, not the blocks that it occupies, so that a hole costs
what it will take when it is filled. A file that was unlinked while somebody holds it open still counts until the last
one has closed it; otherwise a guest could fill the disk with files that have no name.
"""

import threading
from collections import Counter
from dataclasses import dataclass

from sandbox.file_protocol import Errno, FileRefusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """``files_max`` counts files and directories, ``depth_max`` the names of the longest path."""

    bytes_max: int
    files_max: int
    depth_max: int


class Ledger:
    """The account of one scratch directory. Whoever changes the directory holds ``lock`` over change and entry."""

    __slots__ = ("_opened", "_orphans", "bytes_used", "files_used", "lock", "quota")

    def __init__(self, quota: Quota, *, bytes_used: int = 0, files_used: int = 0) -> None:
        self.quota = quota
        self.bytes_used, self.files_used = bytes_used, files_used
        self.lock = threading.RLock()
        self._opened: Counter[int] = Counter()
        self._orphans: set[int] = set()

    def require_file(self, depth: int) -> None:
        """Raise `FileRefusal` (DQUOT) unless one more file or directory fits, at this depth."""
        if self.files_used >= self.quota.files_max or depth > self.quota.depth_max:
            raise FileRefusal(Errno.DQUOT)

    def require_growth(self, before: int, after: int) -> None:
        """Raise `FileRefusal` (DQUOT) unless a file may grow so; one that shrinks always may."""
        if after > before and self.bytes_used + after - before > self.quota.bytes_max:
            raise FileRefusal(Errno.DQUOT)

    def made(self) -> None:
        self.files_used += 1

    def resized(self, before: int, after: int) -> None:
        self.bytes_used += after - before

    def removed(self, inode: int, size: int) -> None:
        """Its name is gone; ``size`` is 0 for a directory."""
        if self._opened[inode]:
            self._orphans.add(inode)
        else:
            self._free(size)

    def opened(self, inode: int) -> None:
        self._opened[inode] += 1

    def closed(self, inode: int, size: int) -> None:
        self._opened[inode] -= 1
        if self._opened[inode] <= 0:
            del self._opened[inode]
            if inode in self._orphans:
                self._orphans.discard(inode)
                self._free(size)

    def _free(self, size: int) -> None:
        self.bytes_used -= size
        self.files_used -= 1
