"""Who vouches for a receipt: a key of the node's process, the node's certificate, the installation's authority.

A signature with the certificate's own key costs from 60 µs to a millisecond, and that key may belong to a device; so
a process makes a key for receipts when it starts, in memory only, and signs one statement about it with the
certificate's key. A receipt with that statement and the certificate verifies anywhere, for ever, without the node.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)
from nacl.bindings import crypto_sign, crypto_sign_BYTES
from nacl.signing import SigningKey

from service.identity import IdentityKind, identity_of_certificate
from service.secret_files import read_secret
from service.tls import TlsFiles, TlsFilesError
from templates.canonical import canonical_bytes
from templates.problems import InvalidDocumentError
from templates.reasons import AgentFactoryError, Reason
from templates.receipt import (
    KEY_TYPE,
    RECEIPT_TYPE,
    Receipt,
    ReceiptInvalidError,
    read_receipt,
    read_receipt_key,
    signed_bytes,
)
from templates.signed_document import time_text
from templates.strict_json import loads

ENVELOPE_BYTES_MAX: Final = 131_072
CLOCK_SKEW: Final = timedelta(minutes=5)
_PSS: Final = padding.PSS(mgf=padding.MGF1(SHA256()), salt_length=SHA256.digest_size)
_RSA_BITS_MIN: Final = 2048


class ReceiptUntrustedError(AgentFactoryError):
    """Nobody whom the verifier trusts vouches for the receipt, or its signature is not that key's."""

    reason = Reason.RECEIPT_UNTRUSTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Voucher:
    """A node's word for its receipt key: ``statement`` signed with the key of the first of ``certificates`` (PEM)."""

    key_id: str
    statement: bytes
    signature: bytes
    certificates: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """Everything that verifies a receipt; ``salt`` is empty once its holder took it out to show it around."""

    statement: bytes
    signature: bytes
    voucher: Voucher
    salt: bytes = b""

    def to_bytes(self) -> bytes:
        """Return the file: a DSSE envelope with the voucher, the certificates and the salt beside it."""
        voucher = self.voucher
        value: dict[str, Any] = {
            **_dsse(RECEIPT_TYPE, self.statement, voucher.key_id, self.signature),
            "voucher": _dsse(KEY_TYPE, voucher.statement, "", voucher.signature),
            "certificates": voucher.certificates.decode(),
        }
        if self.salt:
            value["salt"] = self.salt.hex()
        return json.dumps(value, indent=1).encode() + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a file; nothing of it is verified yet.

        Raises:
            ReceiptInvalidError: not what `to_bytes` writes.
        """
        if len(data) > ENVELOPE_BYTES_MAX:
            raise ReceiptInvalidError(f"expected a receipt of at most {ENVELOPE_BYTES_MAX} bytes, got {len(data)}")
        try:
            value: Any = loads(data, bytes_max=ENVELOPE_BYTES_MAX, depth_max=8)
            if not isinstance(value, dict) or not {"signatures", "voucher"} <= value.keys():
                raise ReceiptInvalidError(
                    "expected a signed receipt, as `agentctl agent invoke --receipt` writes it, got JSON without "
                    "signatures or voucher; runs without a node have no receipt of this kind"
                )
            statement, key_id, signature = _read_dsse(RECEIPT_TYPE, value)
            key_statement, _, key_signature = _read_dsse(KEY_TYPE, value["voucher"])
            certificates: str = value["certificates"]
            voucher = Voucher(
                key_id=key_id, statement=key_statement, signature=key_signature, certificates=certificates.encode()
            )
            salt = bytes.fromhex(value.get("salt", ""))
        except InvalidDocumentError as error:
            raise ReceiptInvalidError(f"expected a receipt, got: {error.message}") from None
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, binascii.Error) as error:
            raise ReceiptInvalidError(f"expected a receipt's envelope, got something else: {error}") from None
        return cls(statement=statement, signature=signature, voucher=voucher, salt=salt)


class ReceiptSigner:
    """A node's receipt key; it exists in this process's memory and nowhere else."""

    def __init__(self, key: SigningKey, voucher: Voucher) -> None:
        self._key = bytes(key) + bytes(key.verify_key)  # as libsodium takes it
        self.voucher = voucher

    @classmethod
    def create(cls, files: TlsFiles, *, now: datetime) -> Self:
        """Make a key, and let the certificate's key vouch for it.

        Raises:
            TlsFilesError: the files are missing, or their key is of a kind that cannot sign this.
        """
        try:
            chain = files.certificate.read_bytes()
            leaf = x509.load_pem_x509_certificates(chain)[0]
            owner = load_pem_private_key(read_secret(files.key), None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise TlsFilesError(f"expected a certificate and its key, got {type(error).__name__}: {files}") from error
        key = SigningKey.generate()
        public = bytes(key.verify_key)
        statement = canonical_bytes(
            {
                "schema": 1,
                "node": identity_of_certificate(leaf).uri,
                "certificate_sha256": hashlib.sha256(leaf.public_bytes(Encoding.DER)).hexdigest(),
                "ed25519": public.hex(),
                "since": time_text(now),
            }
        )
        message = signed_bytes(KEY_TYPE, statement)
        match owner:
            case ec.EllipticCurvePrivateKey():
                signature = owner.sign(message, ec.ECDSA(SHA256()))
            case rsa.RSAPrivateKey():
                signature = owner.sign(message, _PSS, SHA256())
            case Ed25519PrivateKey():
                signature = owner.sign(message)
            case _:
                raise TlsFilesError(f"expected an ECDSA, RSA or Ed25519 key, got {type(owner).__name__}: {files.key}")
        voucher = Voucher(key_id=key_id_of(public), statement=statement, signature=signature, certificates=chain)
        return cls(key, voucher)

    def sign(self, statement: bytes) -> bytes:
        """Sign with libsodium, which takes less than half as long as OpenSSL: each answer waits for it."""
        return crypto_sign(signed_bytes(RECEIPT_TYPE, statement), self._key)[:crypto_sign_BYTES]


def verify_envelope(envelope: Envelope, authorities: Sequence[x509.Certificate]) -> Receipt:
    """Return what the receipt says, if somebody trusted vouches for it.

    Steps, numbered as in ADR 15: (1) the certificates lead to one of ``authorities``, as they were when the key was
    made, and name a node, (2) that node's key signed the voucher, which names this certificate, (3) the voucher's key
    signed the statement, (4) the statement is canonical, of this node, from after the key was made and before the
    certificate's end.

    Raises:
        ReceiptUntrustedError: step 1 to 3, or the node or the times of step 4 differ.
        ReceiptInvalidError: the statement or the voucher is not canonical JSON of its shape.
    """
    voucher = envelope.voucher
    key = read_receipt_key(voucher.statement)
    leaf = _trusted_leaf(voucher.certificates, authorities, at=key.since)
    node = identity_of_certificate(leaf)
    if node.kind is not IdentityKind.NODE:
        raise ReceiptUntrustedError(f"expected the certificate of a node, got one of {node}")
    _require_signed_by(leaf, signed_bytes(KEY_TYPE, voucher.statement), voucher.signature)
    if key.certificate_sha256 != hashlib.sha256(leaf.public_bytes(Encoding.DER)).hexdigest() or key.node != node.uri:
        raise ReceiptUntrustedError(f"expected a word for the key of {node}, got one of another certificate")
    try:
        Ed25519PublicKey.from_public_bytes(key.ed25519).verify(
            envelope.signature, signed_bytes(RECEIPT_TYPE, envelope.statement)
        )
    except (InvalidSignature, ValueError):
        raise ReceiptUntrustedError(f"expected a signature by the receipt key of {node}, got another") from None
    receipt = read_receipt(envelope.statement)
    if receipt.node != node.uri:
        raise ReceiptUntrustedError(f"expected a receipt of {node}, got one of {receipt.node}")
    if not key.since - CLOCK_SKEW <= receipt.started <= leaf.not_valid_after_utc:
        raise ReceiptUntrustedError(
            f"expected a start from {key.since} to {leaf.not_valid_after_utc}, got {receipt.started}"
        )
    return receipt


def key_id_of(public: bytes) -> str:
    """Return the id of a raw Ed25519 public key: its sha256, in hexadecimal."""
    return hashlib.sha256(public).hexdigest()


def _trusted_leaf(pem: bytes, authorities: Sequence[x509.Certificate], *, at: datetime) -> x509.Certificate:
    try:
        leaf, *others = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ReceiptInvalidError("expected the node's certificates in PEM, got something else") from error
    if not authorities:
        raise ReceiptUntrustedError("expected at least one authority to trust, got none")
    # Certificates of installations carry critical extensions that the profile for the web's servers refuses.
    own = (
        ExtensionPolicy.permit_all()
        .require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
        .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _require_client)
    )
    builder = PolicyBuilder().store(Store([*authorities])).time(at)
    builder = builder.extension_policies(ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=own)
    try:
        builder.build_client_verifier().verify(leaf, others)
    except (VerificationError, x509.UnsupportedGeneralNameType, ValueError) as error:
        issuer = (others[-1] if others else leaf).issuer.rfc4514_string()
        count = len(authorities)
        raise ReceiptUntrustedError(
            f"expected a node's certificate of a trusted authority ({count} given), valid when the receipt's key was "
            f"made, got one issued by {issuer!r}: {error}"
        ) from None
    return leaf


def _require_client(_policy: Policy, _certificate: x509.Certificate, usage: x509.ExtendedKeyUsage | None) -> None:
    if usage is not None and ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
        raise ValueError("expected a certificate for clients")


def _require_signed_by(leaf: x509.Certificate, message: bytes, signature: bytes) -> None:
    key = leaf.public_key()
    try:
        match key:
            case ec.EllipticCurvePublicKey():
                key.verify(signature, message, ec.ECDSA(SHA256()))
            case rsa.RSAPublicKey() if key.key_size >= _RSA_BITS_MIN:
                key.verify(signature, message, _PSS, SHA256())
            case Ed25519PublicKey():
                key.verify(signature, message)
            case _:
                raise ReceiptUntrustedError(f"expected an ECDSA, RSA or Ed25519 key, got {type(key).__name__}")
    except InvalidSignature:
        raise ReceiptUntrustedError(
            "expected the node's certificate to vouch for the receipt key, it does not"
        ) from None


def _dsse(payload_type: str, payload: bytes, key_id: str, signature: bytes) -> dict[str, Any]:
    return {
        "payloadType": payload_type,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": key_id, "sig": base64.b64encode(signature).decode()}],
    }


def _read_dsse(payload_type: str, value: Any) -> tuple[bytes, str, bytes]:
    if value["payloadType"] != payload_type:
        raise ValueError(f"expected the payload type {payload_type}")
    (signature,) = value["signatures"]
    payload = base64.b64decode(value["payload"], validate=True)
    return payload, str(signature["keyid"]), base64.b64decode(signature["sig"], validate=True)
