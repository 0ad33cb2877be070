"""The audit log in SQLite: appended to in the transaction of what it tells of, never changed (ADR 22)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.engine import Connection, Row

from control_plane.audit import (
    OWN_ACTION,
    RESOURCE_CHARACTERS_MAX,
    Call,
    Decision,
    one_line,
)
from templates.audit_checkpoint import Checkpoint
from templates.audit_entry import NOTHING_BEFORE, AuditEntry, entry_digest, time_text

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
    return entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One entry: the line that is hashed, and its digest."""

    sequence: int
    sha256: str
    line: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCheckpoint:
    """One checkpoint; ``sha256`` is what the next one calls ``previous``."""

    sequence: int
    sha256: str
    document: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which entries: every field that is set must match; ``principal`` and ``action`` do so as a whole or as a part."""

    principal: str = ""
    action: str = ""
    resource: str = ""
    outcome: str = ""
    code: str = ""
    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_everything(self) -> bool:
        return self == Wanted()

    def conditions(self) -> tuple[list[str], list[str]]:
        """Return SQL conditions and their parameters."""
        found: list[tuple[str, tuple[str, ...]]] = []
        if self.principal:
            found.append(("(principal = ? OR principal LIKE ? ESCAPE '!')", (self.principal, _ending(self.principal))))
        if self.action:
            starting = f"{_literal(self.action)}/%"
            condition = "(action = ? OR action LIKE ? ESCAPE '!' OR action LIKE ? ESCAPE '!')"
            found.append((condition, (self.action, _ending(self.action), starting)))
        found += [
            (f"{name} = ?", (text,))
            for name, text in (("resource", self.resource), ("outcome", self.outcome), ("code", self.code))
            if text
        ]
        if self.since is not None:
            found.append(("at >= ?", (time_text(self.since),)))
        if self.until is not None:
            found.append(("at < ?", (time_text(self.until),)))
        return [condition for condition, _ in found], [each for _, texts in found for each in texts]


def entries(connection: Connection, wanted: Wanted, *, before: int | None, limit: int) -> list[Stored]:
    """Return entries, newest first, with numbers below ``before``."""
    conditions, parameters = wanted.conditions()
    if before is not None:
        conditions.append("sequence < ?")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    numbers = [limit] if before is None else [before, limit]
    rows = connection.exec_driver_sql(
        f"SELECT sequence, sha256, line FROM audit_entries{where} ORDER BY sequence DESC LIMIT ?",  # noqa: S608 -- ours
        (*parameters, *numbers),
    )
    return [Stored(sequence=row.sequence, sha256=row.sha256, line=row.line) for row in rows]


def entry(connection: Connection, sequence: int) -> Stored | None:
    """Return one entry."""
    row = connection.exec_driver_sql(
        "SELECT sequence, sha256, line FROM audit_entries WHERE sequence = ?", (sequence,)
    ).first()
    return None if row is None else Stored(sequence=row.sequence, sha256=row.sha256, line=row.line)


def entries_after(connection: Connection, sequence: int, *, limit: int) -> list[Stored]:
    """Return entries with numbers above ``sequence``, oldest first."""
    rows = connection.exec_driver_sql(
        "SELECT sequence, sha256, line FROM audit_entries WHERE sequence > ? ORDER BY sequence LIMIT ?",
        (sequence, limit),
    )
    return [Stored(sequence=row.sequence, sha256=row.sha256, line=row.line) for row in rows]


def newest_checkpoint(connection: Connection) -> StoredCheckpoint | None:
    """Return the newest checkpoint."""
    row = connection.exec_driver_sql(
        "SELECT sequence, sha256, document FROM audit_checkpoints ORDER BY sequence DESC LIMIT 1"
    ).first()
    return None if row is None else _checkpoint(row)


def checkpoint_of(connection: Connection, sha256: str) -> StoredCheckpoint | None:
    """Return the checkpoint with this digest: None for one that is not of this log."""
    row = connection.exec_driver_sql(
        "SELECT sequence, sha256, document FROM audit_checkpoints WHERE sha256 = ?", (sha256,)
    ).first()
    return None if row is None else _checkpoint(row)


def checkpoints_after(connection: Connection, sequence: int, *, limit: int) -> list[StoredCheckpoint]:
    """Return checkpoints of entries above ``sequence``, oldest first."""
    rows = connection.exec_driver_sql(
        "SELECT sequence, sha256, document FROM audit_checkpoints WHERE sequence > ? ORDER BY sequence LIMIT ?",
        (sequence, limit),
    )
    return [_checkpoint(row) for row in rows]


def add_checkpoint(connection: Connection, checkpoint: Checkpoint, document: bytes) -> None:
    """Store a signed checkpoint."""
    connection.exec_driver_sql(
        "INSERT INTO audit_checkpoints (sequence, sha256, signed_at, document) VALUES (?, ?, ?, ?)",
        (checkpoint.sequence, checkpoint.digest, int(checkpoint.time.timestamp()), document.decode()),
    )


def removable(connection: Connection, *, before: datetime) -> StoredCheckpoint | None:
    """Return the newest checkpoint from before ``before`` that covers entries which are still there."""
    row = connection.exec_driver_sql(
        "SELECT sequence, sha256, document FROM audit_checkpoints WHERE signed_at < ?"
        " AND sequence > (SELECT COALESCE(MAX(sequence), 0) FROM audit_removals) ORDER BY sequence DESC LIMIT 1",
        (int(before.timestamp()),),
    ).first()
    return None if row is None else _checkpoint(row)


def remove(connection: Connection, through: int) -> int:
    """Let entries up to a checkpoint go, and return how many; an entry that says so must have been written."""
    connection.exec_driver_sql("INSERT INTO audit_removals (sequence) VALUES (?)", (through,))
    return connection.exec_driver_sql("DELETE FROM audit_entries WHERE sequence <= ?", (through,)).rowcount


def _checkpoint(row: Row[Any]) -> StoredCheckpoint:
    return StoredCheckpoint(sequence=row.sequence, sha256=row.sha256, document=row.document.encode())


def _literal(text: str) -> str:
    return text.replace("!", "!!").replace("%", "!%").replace("_", "!_")


def _ending(text: str) -> str:
    return f"%/{_literal(text)}"
