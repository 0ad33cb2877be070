"""Files that hold keys: written whole or not at all, mode 0600, not read when other users could have read them."""

import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from templates.reasons import AgentFactoryError, Reason

SECRET_BYTES_MAX: Final = 256 * 1024


class ExposedFileError(AgentFactoryError):
    """A secret file can be read by other users than its owner: mend the mode, and think about replacing the secret."""

    reason = Reason.EXPOSED_KEY_FILE


def read_secret(path: Path) -> bytes:
    """Return the content of a file that only its owner may read; at most ``SECRET_BYTES_MAX``.

    The mode is taken from the opened file, so that nothing can be exchanged in between.

    Raises:
        ExposedFileError: group or others have any right, it belongs to another user, or it is no regular file.
        OSError: missing, unreadable.
    """
    # O_NONBLOCK: opening a fifo that somebody planted must not wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise ExposedFileError(f"expected a regular file, got something else: {path}")
        if facts.st_mode & 0o077:
            raise ExposedFileError(
                f"expected mode 0600, got {facts.st_mode & 0o7777:04o}: {path} (chmod 600, and consider a new key)"
            )
        if facts.st_uid not in {os.geteuid(), 0}:
            raise ExposedFileError(f"expected a file of user {os.geteuid()}, got one of user {facts.st_uid}: {path}")
        content = file.read(SECRET_BYTES_MAX + 1)
    if len(content) > SECRET_BYTES_MAX:
        raise ExposedFileError(f"expected at most {SECRET_BYTES_MAX} bytes, got more: {path}")
    return content


def write_secret(path: Path, content: bytes) -> None:
    """Write ``content`` with mode 0600, durable, by one link: never over an existing file.

    Raises:
        FileExistsError: ``path`` is there already.
        OSError: the directory is missing, full or not ours.
    """
    _write(path, content, mode=0o600, replace=False)


def write_public(path: Path, content: bytes) -> None:
    """Write ``content`` with mode 0644, durable, by one rename over whatever is there."""
    _write(path, content, mode=0o644, replace=True)


def replace_secret(path: Path, content: bytes) -> None:
    """Like `write_secret`, over whatever is there."""
    _write(path, content, mode=0o600, replace=True)


def make_private_directory(path: Path) -> None:
    """Make ``path`` with mode 0700; one that exists is left as it is."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def _write(path: Path, content: bytes, *, mode: int, replace: bool) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        if replace:
            temporary.replace(path)
        else:
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
