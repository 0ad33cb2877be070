"""Checkpoints of the audit log: a signature over its newest entry, chained to the checkpoint before (ADR 22).

A checkpoint is RFC 8785 JSON in a DSSE envelope of its own payload type, signed by the key of the TUF role `snapshot`,
which every node and auditor knows from the root of trust that they pinned. Nodes keep the newest one that they saw and
move on only along the chain: who rewrites the log cannot make them forget what they saw.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from securesystemslib import dsse
from securesystemslib.signer import Signature, Signer, SSlibKey

from templates.audit_entry import NOTHING_BEFORE, AuditInvalidError
from templates.canonical import NotCanonicalError, canonical_bytes, sha256_hex
from templates.keys import SignatureInvalidError, check_key, verify_signature
from templates.problems import InvalidDocumentError
from templates.reasons import AgentFactoryError, Reason
from templates.signed_document import SignedDocument, read_time, time_text
from templates.strict_json import read_canonical
from templates.trusted_set_roles import newest_root, trusted_root

PAYLOAD_TYPE: Final = "application/vnd.agentfactory.audit-checkpoint.v1+json"
CHECKPOINT_BYTES_MAX: Final = 16_384
LINKS_MAX: Final = 256
"""Checkpoints that one message may hold."""

_ROLE: Final = "snapshot"
_PAYLOAD: Final = SignedDocument("audit_checkpoint", bytes_max=CHECKPOINT_BYTES_MAX, error=AuditInvalidError)


class AuditForkedError(AgentFactoryError):
    """A checkpoint does not continue the one that was seen before: the log was rewritten, cut, or is another one."""

    reason = Reason.AUDIT_FORKED


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The log's newest entry is ``sequence``, its digest ``entry_sha256``; ``previous`` is the last one's digest."""

    environment: str
    sequence: int
    entry_sha256: str
    previous: str
    time: datetime

    def to_payload(self) -> bytes:
        """Return the bytes that are signed and hashed; ``time`` is UTC, whole seconds."""
        return canonical_bytes(
            {
                "schema": 1,
                "environment": self.environment,
                "sequence": self.sequence,
                "entry_sha256": self.entry_sha256,
                "previous": self.previous,
                "time": time_text(self.time),
            }
        )

    @property
    def digest(self) -> str:
        """What the next checkpoint calls ``previous``."""
        return sha256_hex(self.to_payload())


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedCheckpoint:
    """A checkpoint that was read; its signature is yet to be verified."""

    checkpoint: Checkpoint
    signature: Signature

    def verify(self, keys: Mapping[str, SSlibKey]) -> Checkpoint:
        """Return the checkpoint.

        Raises:
            SignatureInvalidError: it is signed by none of ``keys``, or its signature does not verify.
        """
        key = keys.get(self.signature.keyid)
        if key is None:
            raise SignatureInvalidError(keyid=self.signature.keyid, scheme="a key of the role snapshot")
        verify_signature(key, self.signature, _pae(self.checkpoint.to_payload()))
        return self.checkpoint


def sign_checkpoint(checkpoint: Checkpoint, signer: Signer) -> bytes:
    """Return the document, which is canonical JSON on one line."""
    payload = checkpoint.to_payload()
    signature = signer.sign(_pae(payload))
    return canonical_bytes(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [
                {"keyid": signature.keyid, "sig": base64.b64encode(bytes.fromhex(signature.signature)).decode()}
            ],
        }
    )


def read_checkpoint(data: bytes) -> SignedCheckpoint:
    """Read a document; raise `AuditInvalidError` unless it is exactly what `sign_checkpoint` could have given."""
    try:
        value = read_canonical(data, bytes_max=CHECKPOINT_BYTES_MAX, depth_max=4)
    except (InvalidDocumentError, NotCanonicalError) as error:
        raise AuditInvalidError(f"expected a checkpoint, got: {error.message}") from None
    match value:
        case {
            "payload": str(payload),
            "payloadType": str(kind),
            "signatures": [{"keyid": str(keyid), "sig": str(sig), **more}],
            **rest,
        } if kind == PAYLOAD_TYPE and not rest and not more:
            pass
        case _:
            raise AuditInvalidError(f"expected a DSSE envelope of {PAYLOAD_TYPE} with one signature")
    try:
        inner: dict[str, Any] = _PAYLOAD.read(base64.b64decode(payload, validate=True))
        signature = Signature(keyid, base64.b64decode(sig, validate=True).hex())
        moment = read_time(inner["time"])
    except (binascii.Error, ValueError) as error:
        raise AuditInvalidError(f"expected a checkpoint, got: {error}") from None
    inner.pop("schema")
    return SignedCheckpoint(checkpoint=Checkpoint(**{**inner, "time": moment}), signature=signature)


def checkpoint_keys(root: bytes) -> Mapping[str, SSlibKey]:
    """Return the keys that may sign checkpoints by a root that is trusted already."""
    signed = trusted_root(root)
    return {keyid: check_key(signed.keys[keyid]) for keyid in signed.roles[_ROLE].keyids}


def keys_of_chain(pinned: bytes, later: Sequence[bytes]) -> Mapping[str, SSlibKey]:
    """Return the keys of a pinned root and of every later one that it leads to: old checkpoints have old keys.

    Args:
        pinned: the root that the caller trusts.
        later: roots, oldest first, as anybody gave them; the pinned one and older ones among them are skipped.

    Raises:
        AgentFactoryError: a later root is not signed by the one before.
    """
    keys = dict(checkpoint_keys(pinned))
    trusted, version = pinned, trusted_root(pinned).version
    for root in later:
        if trusted_root(root).version > version:
            trusted, signed = newest_root(trusted, {f"{version + 1}.root.json": root})
            version = signed.version
            keys |= checkpoint_keys(trusted)
    return keys


def follow(
    held: bytes | None, offered: Sequence[bytes], *, keys: Mapping[str, SSlibKey], environment: str
) -> bytes | None:
    """Return the checkpoint to hold from now on: the newest offered one, if it continues the one that is held.

    Steps: (1) count and reading, (2) the newest one is signed and of this environment, (3) it is not the one that is
    held, (4) the offered ones follow each other, (5) the first follows the one that is held. Those before the newest
    are vouched for by its chain, whoever signed them.

    Returns:
        None when nothing is new.

    Raises:
        AuditInvalidError: not checkpoints of this environment.
        SignatureInvalidError: signed by a key that is not, or not yet, one of ``keys``; try again later.
        AuditForkedError: the log that they speak of is not the one that was seen before.
    """
    if not offered or len(offered) > LINKS_MAX:
        raise AuditInvalidError(f"expected 1 to {LINKS_MAX} checkpoints, got {len(offered)}")
    read = [read_checkpoint(each) for each in offered]
    newest = read[-1].verify(keys)
    if newest.environment != environment:
        raise AuditInvalidError(f"expected a checkpoint of {environment}, got one of {newest.environment[:80]!r}")
    if held is None:
        return offered[-1]
    before = read_checkpoint(held).checkpoint
    if newest.digest == before.digest:
        return None
    for each in (one.checkpoint for one in read):
        if each.previous != before.digest or each.sequence <= before.sequence:
            raise AuditForkedError(
                f"expected a checkpoint after entry {before.sequence} that continues {before.digest[:16]}…, "
                f"got one of entry {each.sequence} that continues {each.previous[:16]}…"
            )
        before = each
    return offered[-1]


def is_first(checkpoint: Checkpoint) -> bool:
    """Whether there is no checkpoint before this one."""
    return checkpoint.previous == NOTHING_BEFORE


def _pae(payload: bytes) -> bytes:
    return dsse.Envelope(payload, PAYLOAD_TYPE, {}).pae()
