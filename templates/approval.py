"""Approvals: reviewers' signatures over one in-toto Statement (v1), gathered in one DSSE envelope.

Everyone who holds the same change builds the same payload, byte for byte: a reviewer builds it from what was derived on
the reviewer's own machine, signs, and the signatures of several reviewers are merged.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from securesystemslib import dsse
from securesystemslib.signer import Signature, Signer

from templates.canonical import canonical_bytes
from templates.capabilities import Capabilities
from templates.charter import Charter
from templates.keys import check_key, verify_signature
from templates.names import InvalidNameError, TemplateRef
from templates.problems import InvalidDocumentError
from templates.reasons import AgentFactoryError, Reason
from templates.signed_document import SignedDocument, read_time, time_text
from templates.strict_json import loads

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:agentfactory:approval:v1"
ENVELOPE_BYTES_MAX = 1_048_576
SIGNATURES_MAX = 64


class ApprovalInvalidError(AgentFactoryError):
    """Bytes are not an approval: not DSSE, not our payload type, not our statement or predicate."""

    reason = Reason.APPROVAL_INVALID


class ApprovalMergeError(AgentFactoryError):
    """Two envelopes hold different payloads: their signatures say different things."""

    reason = Reason.APPROVAL_MISMATCH


class StrangerApprovalError(AgentFactoryError):
    """A signature was made with a key that the charter does not know."""

    reason = Reason.APPROVAL_STRANGER


_STATEMENT = SignedDocument("approval", bytes_max=ENVELOPE_BYTES_MAX, error=ApprovalInvalidError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What one approval says: this template digest may do this, in this environment, until then."""

    environment: str
    template: TemplateRef
    sha256: str
    author: str
    capabilities: Capabilities
    expires: datetime

    def to_payload(self) -> bytes:
        """Return the RFC 8785 bytes of the in-toto Statement; ``expires`` is UTC, whole seconds."""
        return canonical_bytes(
            _STATEMENT.check(
                {
                    "_type": STATEMENT_TYPE,
                    "subject": [{"name": str(self.template), "digest": {"sha256": self.sha256}}],
                    "predicateType": PREDICATE_TYPE,
                    "predicate": {
                        "environment": self.environment,
                        "author": self.author,
                        "capabilities": self.capabilities.to_json(),
                        "expires": time_text(self.expires),
                    },
                }
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A DSSE envelope of our payload type; signatures by key id."""

    payload: bytes
    signatures: Mapping[str, Signature]

    def pae(self) -> bytes:
        """Return the bytes that are signed (DSSE pre-authentication encoding)."""
        return dsse.Envelope(self.payload, PAYLOAD_TYPE, {}).pae()

    def statement(self) -> Statement:
        """Read the payload; raise `ApprovalInvalidError` unless it is exactly what `Statement.to_payload` gives."""
        value: dict[str, Any] = _STATEMENT.read(self.payload)
        subject, predicate = value["subject"][0], value["predicate"]
        try:
            statement = Statement(
                environment=predicate["environment"],
                template=TemplateRef.parse(subject["name"]),
                sha256=subject["digest"]["sha256"],
                author=predicate["author"],
                capabilities=Capabilities.from_json(predicate["capabilities"]),
                expires=read_time(predicate["expires"]),
            )
        except (InvalidNameError, InvalidDocumentError) as error:
            raise ApprovalInvalidError(f"expected a valid approval, got: {error.message}") from None
        except ValueError as error:
            raise ApprovalInvalidError(f"expected a valid approval, got: {error}") from None
        if statement.to_payload() != self.payload:
            raise ApprovalInvalidError("expected the payload that its content gives, got other bytes")
        return statement

    def to_bytes(self) -> bytes:
        """Return canonical JSON with the signatures ordered by key id."""
        return canonical_bytes(
            {
                "payload": _encode(self.payload),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [
                    {"keyid": keyid, "sig": _encode(bytes.fromhex(self.signatures[keyid].signature))}
                    for keyid in sorted(self.signatures)
                ],
            }
        )


def read_envelope(data: bytes) -> Envelope:
    """Read ``….dsse.json``; nothing is verified yet. Raise `ApprovalInvalidError`."""
    try:
        value = loads(data, bytes_max=ENVELOPE_BYTES_MAX, depth_max=4)
    except InvalidDocumentError as error:
        raise ApprovalInvalidError(f"expected a DSSE envelope, got: {error.message}") from None
    match value:
        case {"payload": str(payload), "payloadType": str(kind), "signatures": list(members), **rest} if not rest:
            pass
        case _:
            raise ApprovalInvalidError("expected exactly payload, payloadType and signatures, got another envelope")
    if kind != PAYLOAD_TYPE:
        raise ApprovalInvalidError(f"expected the payload type {PAYLOAD_TYPE}, got {kind[:80]!r}")
    if not 1 <= len(members) <= SIGNATURES_MAX:
        raise ApprovalInvalidError(f"expected 1 to {SIGNATURES_MAX} signatures, got {len(members)}")
    signatures: dict[str, Signature] = {}
    for member in members:
        match member:
            case {"keyid": str(keyid), "sig": str(sig), **rest} if not rest and keyid not in signatures:
                signatures[keyid] = Signature(keyid, _decode(sig).hex())
            case _:
                raise ApprovalInvalidError("expected signatures of keyid and sig by different keys, got another one")
    return Envelope(payload=_decode(payload), signatures=signatures)


def sign(payload: bytes, signer: Signer) -> Envelope:
    """Return an envelope with one signature over ``payload``; raise `KeyRefusedError` if the key may not sign here."""
    key = check_key(signer.public_key)
    unsigned = Envelope(payload=payload, signatures={})
    signature = signer.sign(unsigned.pae())
    verify_signature(key, signature, unsigned.pae())
    return Envelope(payload=payload, signatures={key.keyid: signature})


def merge(first: Envelope, second: Envelope) -> Envelope:
    """Gather the signatures of both; raise `ApprovalMergeError` unless they hold the same payload."""
    if first.payload != second.payload:
        raise ApprovalMergeError("expected two envelopes of one payload, got different payloads")
    return Envelope(payload=first.payload, signatures={**second.signatures, **first.signatures})


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """One signature that verified."""

    person: str
    keyid: str


def verify_signatures(envelope: Envelope, charter: Charter) -> tuple[tuple[Signed, ...], tuple[str, ...]]:
    """Check every signature whose key the charter knows; return those, and the key ids of strangers.

    Raises:
        SignatureInvalidError: a signature under a known key does not verify: somebody tampered, so nothing counts.
    """
    signed: list[Signed] = []
    strangers: list[str] = []
    message = envelope.pae()
    for keyid, signature in sorted(envelope.signatures.items()):
        person = charter.person_of(keyid)
        if person is None:
            strangers.append(keyid)
            continue
        verify_signature(charter.persons[person][keyid], signature, message)
        signed.append(Signed(person=person, keyid=keyid))
    return tuple(signed), tuple(strangers)


def verify_own(envelope: Envelope, charter: Charter) -> tuple[Signed, ...]:
    """Check an envelope that reviewers just handed in: at least one signature, none by a stranger, all valid.

    Raises:
        StrangerApprovalError, SignatureInvalidError, ApprovalInvalidError
    """
    signed, strangers = verify_signatures(envelope, charter)
    if strangers:
        raise StrangerApprovalError(f"expected keys of persons in the charter, got {strangers[0][:80]!r}")
    if not signed:
        raise ApprovalInvalidError("expected at least one signature, got none")
    return signed


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ApprovalInvalidError("expected base64 (RFC 4648, section 4), got other characters") from None
    if _encode(data) != text:
        raise ApprovalInvalidError("expected canonical base64, got stray bits or padding")
    return data
