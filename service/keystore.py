"""Signing keys at rest: encrypted PKCS#8 PEM, 0600, opened by a passphrase; out come securesystemslib signers."""

from enum import StrEnum, unique
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.signer import CryptoSigner, SSlibKey

from service.pkcs8 import encrypt_pkcs8
from service.secret_files import ExposedFileError, read_secret, write_public, write_secret
from templates.reasons import AgentFactoryError, Reason

RSA_BITS: Final = 3072
RSA_BITS_MIN: Final = 2048

__all__ = [
    "ExposedFileError",
    "KeyFileError",
    "KeyKind",
    "PassphraseError",
    "create_key",
    "passphrase_from",
    "public_pem",
    "read_key",
    "read_public_key",
    "write_public_key",
]


@unique
class KeyKind(StrEnum):
    """Allow-listed kinds; the value is what the command line calls them."""

    RSA = "rsa"  # 3072 bits, rsassa-pss-sha256
    ED25519 = "ed25519"
    ML_DSA_65 = "ml-dsa-65"


_SCHEME: Final = {KeyKind.RSA: "rsassa-pss-sha256", KeyKind.ED25519: "ed25519", KeyKind.ML_DSA_65: "ml-dsa-65/1"}


class KeyFileError(AgentFactoryError):
    """The key file is missing, there already, no encrypted private key, or of a kind that is not allow-listed."""

    reason = Reason.INVALID_KEY_FILE


class PassphraseError(AgentFactoryError):
    """No passphrase, an empty one, two of them, or one that does not open the key."""

    reason = Reason.WRONG_PASSPHRASE


PrivateKey = RSAPrivateKey | Ed25519PrivateKey | MLDSA65PrivateKey


def passphrase_from(*, value: str | None, file: Path | None) -> bytes:
    """Return the passphrase that settings name.

    Exactly one of a value (from a variable) and a file (0600; one newline at its end is cut).

    Raises:
        PassphraseError: none, both, empty, or no such file.
        ExposedFileError: the file is readable by others.
    """
    if (value is None) == (file is None):
        raise PassphraseError(
            "expected a passphrase or a passphrase file, got " + ("neither" if file is None else "both")
        )
    if file is not None:
        try:
            found = read_secret(file)
        except OSError as error:
            raise PassphraseError(f"expected a readable passphrase file, got {error.strerror}: {file}") from error
        found = found.removesuffix(b"\n").removesuffix(b"\r")
    else:
        found = (value or "").encode()
    if not found:
        raise PassphraseError("expected a passphrase of at least one byte, got an empty one")
    return found


def create_key(path: Path, *, kind: KeyKind = KeyKind.RSA, passphrase: bytes) -> CryptoSigner:
    """Generate a key, write it encrypted to ``path`` and return its signer.

    The file is 0600, written whole or not at all, never over an existing one.

    Raises:
        KeyFileError: ``path`` exists, or cannot be written.
        PassphraseError: empty passphrase.
    """
    if not passphrase:
        raise PassphraseError("expected a passphrase of at least one byte, got an empty one")
    key = _generate(kind)
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    try:
        write_secret(path, encrypt_pkcs8(plain, passphrase=passphrase))
    except FileExistsError as error:
        raise KeyFileError(f"expected no file yet, got an existing one: {path}") from error
    except OSError as error:
        raise KeyFileError(f"expected a directory to write to, got {error.strerror}: {path}") from error
    return _signer(key, kind)


def read_key(path: Path, *, passphrase: bytes) -> CryptoSigner:
    """Open the key at ``path``; ``.sign(data)`` signs, ``.public_key`` is the public part.

    Takes about a tenth of a second and 16 MiB by design (scrypt).

    Raises:
        KeyFileError: missing, not an encrypted private key, or not an allow-listed kind and size.
        ExposedFileError: readable by others.
        PassphraseError: the passphrase does not open it.
    """
    try:
        content = read_secret(path)
    except OSError as error:
        raise KeyFileError(f"expected a readable key file, got {error.strerror}: {path}") from error
    if not content.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----"):
        raise KeyFileError(f"expected an encrypted private key in PEM (PKCS#8), got something else: {path}")
    try:
        key = load_pem_private_key(content, passphrase)
    except (ValueError, TypeError) as error:
        # The library does not say which of the two it was, and CBC padding must not become an oracle.
        raise PassphraseError(
            f"expected the passphrase of an undamaged key, got another, or a damaged file: {path}"
        ) from error
    except UnsupportedAlgorithm as error:
        raise KeyFileError(f"expected a key of kind {_kinds()}, got one that is not supported: {path}") from error
    if isinstance(key, RSAPrivateKey | Ed25519PrivateKey | MLDSA65PrivateKey):
        return _signer(key, _kind_of(key.public_key(), path))
    raise KeyFileError(f"expected a key of kind {_kinds()}, got {type(key).__name__}: {path}")


def public_pem(key: SSlibKey) -> bytes:
    """Return the public part as PEM (SubjectPublicKeyInfo)."""
    return load_key_value(key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def load_key_value(key: SSlibKey) -> RSAPublicKey | Ed25519PublicKey | MLDSA65PublicKey:
    """Return the key behind securesystemslib's value: hexadecimal for ed25519, PEM for the others."""
    public = key.keyval["public"]
    if key.keytype == "ed25519":
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    return _allowed(load_pem_public_key(public.encode()), Path(key.keyid))


def read_public_key(path: Path) -> SSlibKey:
    """Read a public key in PEM, as `write_public_key` writes it.

    Raises:
        KeyFileError: missing, or not an allow-listed public key.
    """
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise KeyFileError(f"expected a readable public key, got {error.strerror}: {path}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"expected a public key in PEM, got something else: {path}") from error
    allowed = _allowed(key, path)
    return SSlibKey.from_crypto(allowed, scheme=_SCHEME[_kind_of(allowed, path)])


def write_public_key(path: Path, key: SSlibKey) -> None:
    """Write the public part as PEM (0644, by one rename), for a charter or another machine."""
    write_public(path, public_pem(key))


def _generate(kind: KeyKind) -> PrivateKey:
    match kind:
        case KeyKind.RSA:
            return generate_private_key(public_exponent=65537, key_size=RSA_BITS)
        case KeyKind.ED25519:
            return Ed25519PrivateKey.generate()
        case KeyKind.ML_DSA_65:
            return MLDSA65PrivateKey.generate()


def _signer(key: PrivateKey, kind: KeyKind) -> CryptoSigner:
    return CryptoSigner(key, SSlibKey.from_crypto(key.public_key(), scheme=_SCHEME[kind]))


def _allowed(key: object, path: Path) -> RSAPublicKey | Ed25519PublicKey | MLDSA65PublicKey:
    if isinstance(key, RSAPublicKey | Ed25519PublicKey | MLDSA65PublicKey):
        _kind_of(key, path)
        return key
    raise KeyFileError(f"expected a key of kind {_kinds()}, got {type(key).__name__}: {path}")


def _kind_of(key: RSAPublicKey | Ed25519PublicKey | MLDSA65PublicKey, path: Path) -> KeyKind:
    match key:
        case RSAPublicKey():
            if key.key_size < RSA_BITS_MIN:
                raise KeyFileError(f"expected an RSA key of at least {RSA_BITS_MIN} bits, got {key.key_size}: {path}")
            return KeyKind.RSA
        case Ed25519PublicKey():
            return KeyKind.ED25519
        case MLDSA65PublicKey():
            return KeyKind.ML_DSA_65


def _kinds() -> str:
    return ", ".join(KeyKind)
