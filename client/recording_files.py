"""Recordings on the machine of whoever asked for them: a file that only its owner can read, or one under a passphrase.

A node gives a recording out decrypted, over mutual TLS, to a service of its tenant. From then on it is the tenant's to
guard: the file has mode 0600, and with a passphrase it is encrypted (scrypt, RFC 7914; AES-256-GCM).

    magic (8) | salt (16) | nonce (12) | ciphertext and tag
"""

import os
import secrets
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from sandbox.recording import RECORDING_BYTES_CEILING, Recording, RecordingFormatError, read
from service.secret_files import replace_secret
from templates.reasons import AgentFactoryError, Reason

_MAGIC: Final = b"AFRECP1\n"
_SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_HEAD_BYTES: Final = len(_MAGIC) + _SALT_BYTES + _NONCE_BYTES


class RecordingInvalidError(AgentFactoryError):
    """The file is not a recording, or is encrypted and no passphrase was given."""

    reason = Reason.RECORDING_INVALID


class RecordingLockedError(AgentFactoryError):
    """Another passphrase, or changed bytes: nothing of the file is believed."""

    reason = Reason.RECORDING_DAMAGED


def write_recording(path: Path, content: bytes, *, passphrase: bytes | None) -> None:
    """Write a recording durably with mode 0600, over whatever is there; encrypted when there is a passphrase."""
    if passphrase is not None:
        salt, nonce = secrets.token_bytes(_SALT_BYTES), os.urandom(_NONCE_BYTES)
        head = _MAGIC + salt + nonce
        content = head + AESGCM(_key(passphrase, salt)).encrypt(nonce, content, head)
    replace_secret(path, content)


def read_recording(path: Path, *, passphrase: bytes | None) -> Recording:
    """Return the recording in a file.

    Raises:
        RecordingInvalidError: it is none, or needs a passphrase.
        RecordingLockedError: the passphrase does not open it.
    """
    with path.open("rb") as file:
        content = file.read(RECORDING_BYTES_CEILING + _HEAD_BYTES + 1)
    if content.startswith(_MAGIC):
        if passphrase is None:
            raise RecordingInvalidError(f"expected the passphrase of {path} (--passphrase-file), got none")
        head, salt = content[:_HEAD_BYTES], content[len(_MAGIC) : len(_MAGIC) + _SALT_BYTES]
        try:
            content = AESGCM(_key(passphrase, salt)).decrypt(head[-_NONCE_BYTES:], content[_HEAD_BYTES:], head)
        except (InvalidTag, ValueError) as error:
            raise RecordingLockedError(
                f"expected the passphrase and the bytes that {path} was written with, got others"
            ) from error
    try:
        return read(content)
    except RecordingFormatError as error:
        raise RecordingInvalidError(f"{path}: {error}") from error


def _key(passphrase: bytes, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=2**17, r=8, p=1).derive(passphrase)
