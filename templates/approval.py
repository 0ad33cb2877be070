"""Approvals: reviewers' signatures over one in-toto Statement (v1), gathered in one DSSE envelope.

Everyone who holds the same change builds the same payload, byte for byte: a reviewer builds it from what was derived on the
reviewer's own machine, signs, and the signatures of several reviewers are merged.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from securesystemslib.signer import Signature, Signer

from templates.capabilities import Capabilities
from templates.charter import Charter
from templates.names import TemplateRef
from templates.reasons import AgentFactoryError, Reason

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
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A DSSE envelope of our payload type; signatures by key id."""

    payload: bytes
    signatures: Mapping[str, Signature]

    def pae(self) -> bytes:
        """Return the bytes that are signed (DSSE pre-authentication encoding)."""
        raise NotImplementedError

    def statement(self) -> Statement:
        """Read the payload; raise `ApprovalInvalidError` unless it is exactly what `Statement.to_payload` gives."""
        raise NotImplementedError

    def to_bytes(self) -> bytes:
        """Return canonical JSON with the signatures ordered by key id."""
        raise NotImplementedError


def read_envelope(data: bytes) -> Envelope:
    """Read ``….dsse.json``; nothing is verified yet. Raise `ApprovalInvalidError`."""
    raise NotImplementedError


def sign(payload: bytes, signer: Signer) -> Envelope:
    """Return an envelope with one signature over ``payload``."""
    raise NotImplementedError


def merge(first: Envelope, second: Envelope) -> Envelope:
    """Gather the signatures of both; raise `ApprovalMergeError` unless they hold the same payload."""
    raise NotImplementedError


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
    raise NotImplementedError


def verify_own(envelope: Envelope, charter: Charter) -> tuple[Signed, ...]:
    """Check an envelope that reviewers just handed in: at least one signature, none by a stranger, all valid.

    Raises:
        StrangerApprovalError, SignatureInvalidError, ApprovalInvalidError
    """
    raise NotImplementedError
