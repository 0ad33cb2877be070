import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from securesystemslib.signer import CryptoSigner, Signature, SSlibKey

from templates.keys import (
    KeyIdMismatchError,
    KeyRefusedError,
    SignatureInvalidError,
    check_key,
    key_json,
    read_key,
    verify_signature,
)
from tests.trust_world import signer

MESSAGE = b"what is signed"
NAMES = ("alice", "bob", "carol")  # ed25519, RSA, ML-DSA


@pytest.mark.parametrize("name", NAMES)
def test_every_allowed_kind_reads_back_and_verifies(name: str) -> None:
    key = signer(name).public_key
    assert read_key(key.keyid, key_json(key)) == key
    verify_signature(key, signer(name).sign(MESSAGE), MESSAGE)


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_message_or_signature_is_refused(name: str) -> None:
    key, signature = signer(name).public_key, signer(name).sign(MESSAGE)
    flipped = Signature(key.keyid, f"{int(signature.signature[:2], 16) ^ 1:02x}{signature.signature[2:]}")
    for bad, message in ((signature, MESSAGE + b"!"), (flipped, MESSAGE), (Signature(key.keyid, "00"), MESSAGE)):
        with pytest.raises(SignatureInvalidError, match="does not verify"):
            verify_signature(key, bad, message)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spelling", ["", "zz", "0", "AB" * 32, " 00", "00 "])
def test_a_signature_that_is_not_plain_hexadecimal_is_refused(spelling: str, name: str) -> None:
    key = signer(name).public_key
    with pytest.raises(SignatureInvalidError):
        verify_signature(key, Signature(key.keyid, spelling), MESSAGE)


@pytest.mark.parametrize("name", NAMES)
def test_a_signature_under_another_key_id_is_refused(name: str) -> None:
    signature = signer(name).sign(MESSAGE)
    with pytest.raises(SignatureInvalidError):
        verify_signature(signer(name).public_key, Signature("0" * 64, signature.signature), MESSAGE)


@pytest.mark.parametrize("salt_bytes", [0, 20, 64])
def test_an_rsa_signature_with_another_salt_length_is_refused_though_securesystemslib_takes_it(salt_bytes: int) -> None:
    private = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    key = SSlibKey.from_crypto(private.public_key())
    raw = private.sign(MESSAGE, padding.PSS(mgf=padding.MGF1(SHA256()), salt_length=salt_bytes), SHA256())
    signature = Signature(key.keyid, raw.hex())
    key.verify_signature(signature, MESSAGE)
    with pytest.raises(SignatureInvalidError):
        verify_signature(key, signature, MESSAGE)


def _rsa(bits: int, exponent: int = 65_537) -> SSlibKey:
    return SSlibKey.from_crypto(rsa.generate_private_key(public_exponent=exponent, key_size=bits).public_key())


REFUSED_KINDS = {
    "RSA below 2048 bits": lambda: _rsa(1024),
    "RSA with another exponent": lambda: _rsa(2048, 3),
    "RSA with PKCS 1 v1.5": lambda: CryptoSigner.generate_rsa(size=2048, scheme="rsa-pkcs1v15-sha256").public_key,
    "RSA with SHA-512": lambda: CryptoSigner.generate_rsa(size=2048, scheme="rsassa-pss-sha512").public_key,
    "ECDSA": lambda: CryptoSigner.generate_ecdsa().public_key,
    "ML-DSA-44": lambda: CryptoSigner.generate_mldsa(scheme="ml-dsa-44/1").public_key,
}


@pytest.mark.parametrize("kind", REFUSED_KINDS)
def test_other_kinds_sizes_and_schemes_are_refused(kind: str) -> None:
    with pytest.raises(KeyRefusedError, match="expected"):
        check_key(REFUSED_KINDS[kind]())


def test_one_key_cannot_come_back_under_a_second_identifier() -> None:
    key = signer("alice").public_key
    with pytest.raises(KeyIdMismatchError, match=key.keyid):
        read_key("0" * 64, key_json(key))


def test_one_key_cannot_come_back_in_a_second_spelling() -> None:
    ed25519, pem = signer("alice").public_key, signer("bob").public_key
    for key, public in (
        (ed25519, ed25519.keyval["public"].upper()),
        (ed25519, ed25519.keyval["public"] + " "),
        (pem, pem.keyval["public"].replace("\n", "\r\n")),
        (pem, pem.keyval["public"] + "\n"),
        (pem, "a comment\n" + pem.keyval["public"]),
    ):
        other = SSlibKey("", key.keytype, key.scheme, {"public": public})
        keyid = hashlib.sha256(public.encode()).hexdigest()
        with pytest.raises(KeyRefusedError):
            read_key(keyid, {**other.to_dict()})


@pytest.mark.parametrize(
    "change",
    [
        {"keytype": "rsa"},
        {"scheme": "rsassa-pss-sha256"},
        {"keyval": {"public": "nonsense"}},
        {"keyval": {"public": ""}},
        {"keyval": {"public": "00" * 31}},
        {"keyval": {"public": "00" * 32, "private": "00"}},
        {"keyval": {}},
        {"keyval": "x"},
        {"more": 1},
        {"keytype": 1},
    ],
)
def test_a_malformed_key_is_refused(change: dict[str, object]) -> None:
    key = signer("alice").public_key
    with pytest.raises((KeyRefusedError, KeyIdMismatchError)):
        read_key(key.keyid, {**key_json(key), **change})  # type: ignore[dict-item]


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_a_key_that_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(KeyRefusedError):
        read_key("0" * 64, value)  # type: ignore[arg-type]


def test_a_spelling_that_is_far_too_long_is_not_even_parsed() -> None:
    key = signer("alice").public_key
    with pytest.raises(KeyRefusedError, match="more than 8192 characters"):
        read_key(key.keyid, {**key_json(key), "keyval": {"public": "0" * 9000}})


def test_a_key_of_one_kind_does_not_pass_for_another() -> None:
    pem = signer("carol").public_key.keyval["public"]
    with pytest.raises(KeyRefusedError, match="another kind"):
        read_key("0" * 64, {"keytype": "rsa", "scheme": "rsassa-pss-sha256", "keyval": {"public": pem}})
