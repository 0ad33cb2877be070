"""One entry of the audit log: what it says, in which bytes, and how it is chained to the one before.

The control plane writes entries, and whoever audits it reads them years later, elsewhere: both go by this file. An
entry is RFC 8785 JSON on one line; its digest is the SHA-256 of exactly these bytes, and stands in the next entry as
``previous``. So a line of an export can be checked with ``sha256sum`` alone.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum, unique
from typing import Any, Final

from templates.canonical import canonical_bytes
from templates.reasons import AgentFactoryError, Reason
from templates.signed_document import SignedDocument

ENTRY_BYTES_MAX: Final = 16_384
NOTHING_BEFORE: Final = "0" * 64
"""``previous`` of the first entry of a log."""
RETENTION_ACTION: Final = "AuditLog/Remove"
"""Action of the entry that says what retention removed; its detail ``through`` is the last entry that went."""

_TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%S.%fZ"


class AuditInvalidError(AgentFactoryError):
    """Bytes are not an entry, a checkpoint or an export of an audit log."""

    reason = Reason.AUDIT_INVALID


@unique
class Outcome(StrEnum):
    """What became of what was asked."""

    DONE = "DONE"  # and its effect is in the same transaction
    UNCHANGED = "UNCHANGED"  # allowed, and nothing to do: a check only, or a request that was repeated
    REFUSED = "REFUSED"
    FAILED = "FAILED"  # by our fault, or nobody had time; not a judgement


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Who did what, from where, to what, why, and what became of it.

    ``principal`` is the URI of the caller's identity, empty when nobody could be identified. ``action`` is
    ``Service/Method`` of the call, or ``ControlPlane/…`` and ``AuditLog/…`` for what nobody asked for. ``code`` is the
    stable reason of a refusal, ``reason`` what a person gave as one. ``count`` is more than 1 for a flood of one
    refusal, which began at ``since`` and was counted until ``time``.
    """

    sequence: int
    previous: str
    time: datetime
    principal: str
    roles: tuple[str, ...]
    address: str
    action: str
    resource: str
    digests: Mapping[str, str]
    outcome: Outcome
    code: str
    reason: str
    details: Mapping[str, str]
    trace_id: str
    count: int = 1
    since: datetime | None = None

    def to_bytes(self) -> bytes:
        """Return the line that is hashed."""
        value: dict[str, Any] = {
            "schema": 1,
            "sequence": self.sequence,
            "previous": self.previous,
            "time": time_text(self.time),
            "principal": self.principal,
            "roles": list(self.roles),
            "address": self.address,
            "action": self.action,
            "resource": self.resource,
            "digests": dict(self.digests),
            "outcome": str(self.outcome),
            "code": self.code,
            "reason": self.reason,
            "details": dict(self.details),
            "trace_id": self.trace_id,
            "count": self.count,
        }
        if self.since is not None:
            value["since"] = time_text(self.since)
        return canonical_bytes(value)


_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode
_ENTRY: Final = SignedDocument("audit_entry", bytes_max=ENTRY_BYTES_MAX, error=AuditInvalidError)


def read_audit_entry(data: bytes) -> AuditEntry:
    """Read an entry; raise `AuditInvalidError` unless it is canonical and has the published shape."""
    value = _read_fast(data)
    if value is None:
        value = dict(_ENTRY.read(data))
    value.pop("schema")
    try:
        value["time"] = read_time(value["time"])
        if "since" in value:
            value["since"] = read_time(value["since"])
    except ValueError as error:
        raise AuditInvalidError(f"expected times in an entry, got: {error}") from None
    value["roles"] = tuple(value["roles"])
    value["outcome"] = Outcome(value["outcome"])
    return AuditEntry(**value)


def _read_fast(data: bytes) -> dict[str, Any] | None:
    """Return a valid entry, or None for `SignedDocument.read` to say what is wrong: logs have millions of lines.

    Names are ASCII and every value a text or a whole number, for which Python's encoder and RFC 8785 agree: bytes that
    it gives back are canonical, and hold no name twice.
    """
    if len(data) > ENTRY_BYTES_MAX:
        return None
    try:
        value = json.loads(data, parse_float=_refuse, parse_constant=_refuse)
        if _encode(value).encode() != data or not isinstance(value, dict):
            return None
        _ENTRY.check(value)
    except (ValueError, RecursionError, AuditInvalidError):
        return None
    return value


def _refuse(text: str) -> None:
    raise ValueError(text)


def entry_digest(data: bytes) -> str:
    """Return what the next entry calls ``previous``."""
    return hashlib.sha256(data).hexdigest()


def time_text(moment: datetime) -> str:
    """Return the spelling of a moment in entries: UTC with microseconds."""
    return moment.astimezone(UTC).strftime(_TIME_FORMAT)


def read_time(text: str) -> datetime:
    """Read what `time_text` gives; raise `ValueError` for anything else."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None or time_text(moment) != text:
        raise ValueError(f"expected a time spelled {time_text(moment)}, got {text!r}")
    return moment
