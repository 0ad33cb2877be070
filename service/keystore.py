"""Signing keys at rest: encrypted PKCS#8 PEM, 0600, a passphrase from a file or from settings; out come securesystemslib signers."""

from enum import StrEnum, unique
from pathlib import Path

from securesystemslib.signer import CryptoSigner, SSlibKey

from templates.reasons import AgentFactoryError, Reason


@unique
class KeyKind(StrEnum):
    """Allow-listed kinds; the value is what the command line calls them."""

    RSA = "rsa"  # 3072 bits, rsassa-pss-sha256
    ED25519 = "ed25519"
    ML_DSA_65 = "ml-dsa-65"


class KeyFileError(AgentFactoryError):
    """The key file is missing, exists already, is not an encrypted private key, or of a kind that is not allow-listed."""

    reason = Reason.INVALID_KEY_FILE


class KeyExposedError(AgentFactoryError):
    """A secret file can be read by other users than its owner."""

    reason = Reason.EXPOSED_KEY_FILE


class PassphraseError(AgentFactoryError):
    """No passphrase, an empty one, two of them, or one that does not open the key."""

    reason = Reason.WRONG_PASSPHRASE


def passphrase(*, value: str | None, file: Path | None) -> bytes:
    """Return the passphrase that settings name: exactly one of a value (from a variable) and a file (0600; one trailing newline is cut).

    Raises:
        PassphraseError: none, both, or empty.
        KeyExposedError: the file is readable by others.
    """
    raise NotImplementedError


def create_key(path: Path, *, kind: KeyKind = KeyKind.RSA, passphrase: bytes) -> CryptoSigner:
    """Generate a key, write it encrypted to ``path`` (0600, by one rename, never over an existing file) and return its signer.

    Raises:
        KeyFileError: ``path`` exists, or cannot be written.
        PassphraseError: empty passphrase.
    """
    raise NotImplementedError


def read_key(path: Path, *, passphrase: bytes) -> CryptoSigner:
    """Open the key at ``path``; ``.sign(data)`` signs, ``.public_key`` is the public part.

    Takes a tenth of a second and 16 MiB by design (scrypt).

    Raises:
        KeyFileError: missing, not an encrypted private key, or not an allow-listed kind and size.
        KeyExposedError: readable by others.
        PassphraseError: the passphrase does not open it.
    """
    raise NotImplementedError


def read_public_key(path: Path) -> SSlibKey:
    """Read a public key in PEM, as `write_public_key` writes it.

    Raises:
        KeyFileError: missing, or not an allow-listed public key.
    """
    raise NotImplementedError


def write_public_key(path: Path, key: SSlibKey) -> None:
    """Write the public part as PEM (0644, by one rename), for a charter or another machine."""
    raise NotImplementedError
