"""Small files under a MAC: a flipped, cut or exchanged byte is noticed before anything is parsed.

The MAC (HMAC-SHA-256) covers what the file is for beside its content, so that one file cannot stand in for another. It
guards against damage and against whoever can write the directory but not read the key; signatures are checked all the
same.
"""

import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Final

from templates.reasons import AgentFactoryError, Reason

KEY_BYTES: Final = 32
SEALED_BYTES_MAX: Final = 128 * 1024 * 1024

_MAGIC: Final = b"AFSEAL1\n"
_MAC_BYTES: Final = 32


class StoreDamagedError(AgentFactoryError):
    """A file of the store is missing or is not what this node wrote."""

    reason = Reason.STORE_DAMAGED

    def __init__(self, path: Path, expected: str) -> None:
        super().__init__(f"{path.name}: expected {expected}", metadata={"file": path.name})


class StoreFailedError(AgentFactoryError):
    """The store could not be written: a full or broken disk. What was there before is still there."""

    reason = Reason.STORE_FAILED


def load_or_make_key(path: Path) -> bytes:
    """Return the node's own secret; made at the first start, never sent anywhere. A damaged one is replaced.

    After a replacement every sealed file is refused, which is what damage to the key must lead to.
    """
    if path.exists():
        key = path.read_bytes()
        if len(key) == KEY_BYTES:
            return key
    key = secrets.token_bytes(KEY_BYTES)
    write_durably(path, key)
    return key


def derived_key(key: bytes, purpose: str) -> bytes:
    """Return a key for one purpose (HKDF-Expand of RFC 5869 with one block)."""
    return hmac.digest(key, purpose.encode() + b"\x01", hashlib.sha256)


def write_sealed(path: Path, content: bytes, *, purpose: str, key: bytes) -> None:
    """Replace ``path`` durably: after a crash it holds the old or the new content, whole."""
    write_durably(path, _MAGIC + _mac(content, purpose, key) + content)


def read_sealed(path: Path, *, purpose: str, key: bytes) -> bytes:
    """Return the content.

    Raises:
        StoreDamagedError: missing, cut, too long, of another purpose or key, or changed in any bit.
    """
    try:
        with path.open("rb") as file:
            data = file.read(SEALED_BYTES_MAX + 1)
    except OSError as error:
        raise StoreDamagedError(path, f"a readable file, got {error.strerror}") from error
    head = len(_MAGIC) + _MAC_BYTES
    if len(data) > SEALED_BYTES_MAX or not data.startswith(_MAGIC) or len(data) < head:
        raise StoreDamagedError(path, "a whole sealed file, got something else")
    content = data[head:]
    if not hmac.compare_digest(data[len(_MAGIC) : head], _mac(content, purpose, key)):
        raise StoreDamagedError(path, f"the bytes that were sealed as {purpose!r}, got changed ones")
    return content


def write_durably(path: Path, data: bytes) -> None:
    """Temporary file, fsync, rename, fsync of the directory; mode 0600.

    Raises:
        StoreFailedError: the disk is full or broken; ``path`` is as it was.
    """
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise StoreFailedError(f"expected to write {path.name}, got {error.strerror}") from error


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _mac(content: bytes, purpose: str, key: bytes) -> bytes:
    return hmac.digest(key, purpose.encode() + b"\0" + content, hashlib.sha256)
