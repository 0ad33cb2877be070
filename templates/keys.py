"""Public keys that may say anything here: which kinds, how they are named, and how one signature is checked.

A key is its bytes. Its identifier is the hash of those bytes in one exact spelling, so two identifiers are two keys and a key
cannot come back under another name (python-tuf counts identifiers and checks neither; ADR 4).
"""

from collections.abc import Mapping

from securesystemslib.signer import Key, Signature, SSlibKey

from templates.canonical import JsonObject, JsonValue
from templates.reasons import AgentFactoryError, Reason

RSA_BITS_MIN = 2048
RSA_BITS_MAX = 8192  # a verification costs the square of the length
SCHEMES: Mapping[str, str] = {"rsa": "rsassa-pss-sha256", "ed25519": "ed25519", "ml-dsa": "ml-dsa-65/1"}
"""Key type → the one scheme that it may sign with."""


class KeyRefusedError(AgentFactoryError):
    """A public key is of a kind, size or spelling that is not allowed."""

    reason = Reason.KEY_REFUSED


class KeyIdMismatchError(AgentFactoryError):
    """A key stands under an identifier that is not its hash."""

    reason = Reason.KEY_ID_MISMATCH


class SignatureInvalidError(AgentFactoryError):
    """A signature under a known key does not verify over these bytes."""

    reason = Reason.SIGNATURE_INVALID


def read_key(keyid: str, value: JsonValue) -> SSlibKey:
    """Read one key of a charter or of TUF metadata: ``{"keytype", "scheme", "keyval": {"public"}}`` and nothing else.

    Raises:
        KeyRefusedError: another kind, scheme or size, or not the one spelling of that key.
        KeyIdMismatchError: ``keyid`` is not the key's hash.
    """
    raise NotImplementedError


def check_key(key: Key) -> SSlibKey:
    """Hold a key object to the rules of `read_key` and return it."""
    raise NotImplementedError


def key_json(key: Key) -> JsonObject:
    """Return the JSON form that `read_key` reads."""
    raise NotImplementedError


def verify_signature(key: SSlibKey, signature: Signature, message: bytes) -> None:
    """Raise `SignatureInvalidError` unless ``signature`` is ``key``'s over ``message``.

    RSA signatures are PSS with SHA-256, MGF1-SHA-256 and a salt of exactly 32 bytes (RFC 8017, section 8.1).
    """
    raise NotImplementedError
