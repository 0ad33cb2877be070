"""Public keys that may say anything here: which kinds, how they are named, and how one signature is checked.

A key is its bytes. Its identifier is the hash of those bytes in one exact spelling, so two identifiers are two keys and
a key cannot come back under another name (python-tuf counts identifiers and checks neither; ADR 4).
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Key, Signature, SSlibKey

from templates.canonical import JsonObject, JsonValue
from templates.reasons import AgentFactoryError, Reason

RSA_BITS_MIN = 2048
RSA_BITS_MAX = 8192  # a verification costs the square of the length
RSA_EXPONENT = 65_537
PSS_SALT_BYTES = 32
PUBLIC_CHARACTERS_MAX = 8192
SCHEMES: Mapping[str, str] = {"rsa": "rsassa-pss-sha256", "ed25519": "ed25519", "ml-dsa": "ml-dsa-65/1"}
"""Key type → the one scheme that it may sign with."""

_HEX = re.compile(r"(?:[0-9a-f]{2}){1,8192}")


class KeyRefusedError(AgentFactoryError):
    """A public key is of a kind, size or spelling that is not allowed."""

    reason = Reason.KEY_REFUSED


class KeyIdMismatchError(AgentFactoryError):
    """A key stands under an identifier that is not its hash."""

    reason = Reason.KEY_ID_MISMATCH

    def __init__(self, *, expected: str, got: str) -> None:
        super().__init__(f"expected key id {expected}, the hash of the key, got {got[:80]!r}")


class SignatureInvalidError(AgentFactoryError):
    """A signature under a known key does not verify over these bytes."""

    reason = Reason.SIGNATURE_INVALID

    def __init__(self, *, keyid: str, scheme: str) -> None:
        super().__init__(f"expected a {scheme} signature by key {keyid}, got one that does not verify")


def read_key(keyid: str, value: JsonValue) -> SSlibKey:
    """Read one key of a charter or of TUF metadata: ``{"keytype", "scheme", "keyval": {"public"}}`` and nothing else.

    Raises:
        KeyRefusedError: another kind, scheme or size, or not the one spelling of that key.
        KeyIdMismatchError: ``keyid`` is not the key's hash.
    """
    match value:
        case {"keytype": str(keytype), "scheme": str(scheme), "keyval": {"public": str(public), **others}, **rest} if (
            not rest and not others
        ):
            pass
        case _:
            raise KeyRefusedError(f"expected exactly keytype, scheme and keyval.public, got another key {keyid[:80]!r}")
    if SCHEMES.get(keytype) != scheme:
        allowed = ", ".join(f"{kind} with {name}" for kind, name in SCHEMES.items())
        raise KeyRefusedError(f"expected {allowed}, got {keytype[:40]!r} with {scheme[:40]!r}")
    canonical = _canonical_key(keytype, public)
    if canonical.keyval["public"] != public:
        raise KeyRefusedError(f"expected the canonical spelling of a {keytype} public key, got another one of {keyid}")
    if canonical.keyid != keyid:
        raise KeyIdMismatchError(expected=canonical.keyid, got=keyid)
    return canonical


def check_key(key: Key) -> SSlibKey:
    """Hold a key object to the rules of `read_key` and return it."""
    return read_key(key.keyid, key.to_dict())


def key_json(key: Key) -> JsonObject:
    """Return the JSON form that `read_key` reads."""
    return dict(check_key(key).to_dict())


def verify_signature(key: SSlibKey, signature: Signature, message: bytes) -> None:
    """Raise `SignatureInvalidError` unless ``signature`` is ``key``'s over ``message``.

    RSA signatures are PSS with SHA-256, MGF1-SHA-256 and a salt of exactly 32 bytes (RFC 8017, section 8.1): the check
    of securesystemslib takes any salt, none included.
    """
    refusal = SignatureInvalidError(keyid=key.keyid, scheme=key.scheme)
    text: object = signature.signature  # python-tuf takes whatever stands there, of any JSON type
    if signature.keyid != key.keyid or not isinstance(text, str) or not _HEX.fullmatch(text):
        raise refusal
    public = _load(key.keytype, key.keyval["public"])
    try:
        if isinstance(public, RSAPublicKey):
            raw = bytes.fromhex(signature.signature)
            public.verify(raw, message, PSS(mgf=MGF1(SHA256()), salt_length=PSS_SALT_BYTES), SHA256())
        else:
            key.verify_signature(signature, message)
    except (InvalidSignature, UnverifiedSignatureError):
        raise refusal from None


def _canonical_key(keytype: str, public: str) -> SSlibKey:
    try:
        loaded = _load(keytype, public)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyRefusedError(f"expected a {keytype} public key, got {error}") from None
    if isinstance(loaded, RSAPublicKey):
        if not RSA_BITS_MIN <= loaded.key_size <= RSA_BITS_MAX:
            raise KeyRefusedError(f"expected RSA of {RSA_BITS_MIN} to {RSA_BITS_MAX} bits, got {loaded.key_size}")
        exponent = loaded.public_numbers().e
        if exponent != RSA_EXPONENT:
            raise KeyRefusedError(f"expected the RSA exponent {RSA_EXPONENT}, got {exponent}")
    return SSlibKey.from_crypto(loaded, scheme=SCHEMES[keytype])


@lru_cache(maxsize=1024)
def _load(keytype: str, public: str) -> RSAPublicKey | Ed25519PublicKey | MLDSA65PublicKey:
    if len(public) > PUBLIC_CHARACTERS_MAX:
        raise ValueError(f"more than {PUBLIC_CHARACTERS_MAX} characters")
    if keytype == "ed25519":
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    loaded = load_pem_public_key(public.encode())
    if keytype == "rsa" and isinstance(loaded, RSAPublicKey):
        return loaded
    if keytype == "ml-dsa" and isinstance(loaded, MLDSA65PublicKey):
        return loaded
    raise ValueError(f"a key of another kind, {type(loaded).__name__}")
