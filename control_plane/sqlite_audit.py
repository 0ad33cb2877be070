"""The audit log in SQLite: appended to in the transaction of what it tells of, never changed (ADR 22)."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.engine import Connection

from control_plane.audit import (
    OWN_ACTION,
    RESOURCE_CHARACTERS_MAX,
    Call,
    Decision,
    one_line,
)
from templates.audit_entry import NOTHING_BEFORE, AuditEntry, entry_digest

DETAILS_MAX = 16
ROLES_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The end of the chain; ``sequence`` is 0 before the first entry."""

    sequence: int = 0
    sha256: str = NOTHING_BEFORE


def head(connection: Connection) -> Head:
    """Return the newest entry's number and digest."""
    row = connection.exec_driver_sql(
        "SELECT sequence, sha256 FROM audit_entries ORDER BY sequence DESC LIMIT 1"
    ).first()
    return Head() if row is None else Head(sequence=row.sequence, sha256=row.sha256)


def append(
    connection: Connection,
    decision: Decision,
    *,
    call: Call,
    at: datetime,
    trace_id: str = "",
    count: int = 1,
    since: datetime | None = None,
) -> AuditEntry:
    """Chain one decision to the log, in the transaction of ``connection``, which must have begun as IMMEDIATE.

    Args:
        connection: from `SqliteStore.writing`.
        decision: texts are cut and cleaned here.
        call: who asked for it.
        at: now.
        trace_id: by default the call's.
        count: more than 1 for a flood of one refusal.
        since: when that flood began.
    """
    before = head(connection)
    entry = AuditEntry(
        sequence=before.sequence + 1,
        previous=before.sha256,
        time=at,
        principal=one_line(call.principal, 512),
        roles=tuple(one_line(role, 100) for role in list(call.roles)[:ROLES_MAX]),
        address=one_line(call.address, 64),
        action=decision.action or call.action or OWN_ACTION,
        resource=one_line(decision.resource or call.resource, RESOURCE_CHARACTERS_MAX),
        digests=decision.digests,
        outcome=decision.outcome,
        code=decision.code,
        reason=one_line(decision.reason),
        details={name: one_line(text) for name, text in list(decision.details.items())[:DETAILS_MAX]},
        trace_id=trace_id or call.trace_id,
        count=count,
        since=since,
    )
    line = entry.to_bytes()
    connection.exec_driver_sql(
        "INSERT INTO audit_entries (sequence, sha256, line) VALUES (?, ?, ?)",
        (entry.sequence, entry_digest(line), line.decode()),
    )
    call.recorded += 1
    return entry
