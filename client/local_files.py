"""Files of one `agentctl template run`: directories of the author's own, served as a node serves its exports."""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sandbox.file_session import FileLimits, FileSession, MountPoint
from sandbox.file_tree import Tree
from templates.grants import FileGrant


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalMount:
    """A directory for the mount of one grant; ``writable`` if the author said so."""

    mount: str
    directory: Path
    writable: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``MOUNT=DIR`` or ``MOUNT=DIR:rw``.

        Raises:
            ValueError: it is neither, or there is no such directory.
        """
        mount, _, rest = text.partition("=")
        writable = rest.endswith(":rw")
        directory = Path(rest.removesuffix(":rw"))
        if not mount.startswith("/") or not rest:
            raise ValueError(f"expected files=MOUNT=DIR or files=MOUNT=DIR:rw, got files={text}")
        if not directory.is_dir():
            raise ValueError(f"expected a directory, got {directory}")
        return cls(mount=mount, directory=directory, writable=writable)


class LocalFiles:
    """The files of one run. A mount without a directory, or beyond the template's grant, is refused as on a node."""

    def __init__(self, grants: Sequence[FileGrant], mounts: Sequence[LocalMount]) -> None:
        chosen = {each.mount: each for each in mounts}
        points = [MountPoint(grant.mount, _opener(grant, chosen.get(grant.mount))) for grant in sorted(grants)]
        self._session = FileSession(points, FileLimits(), on_close=lambda: None)
        self.usage = self._session.usage

    async def call(self, function: str, argument: bytes) -> bytes:
        """Answer one request of virtual WASI."""
        return await asyncio.to_thread(self._session.perform, function, argument)

    def close(self) -> None:
        """Close what is open."""
        self._session.close()


def _opener(grant: FileGrant, mount: LocalMount | None) -> Callable[[int], Tree] | None:
    if mount is None:
        return None

    def tree(number: int) -> Tree:
        root = os.open(mount.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return Tree(root, writable=mount.writable and grant.mode == "rw", number=number)

    return tree
