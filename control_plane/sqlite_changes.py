"""Changes and their history in SQLite: every transition is checked against `control_plane.lifecycle` when written."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from control_plane.lifecycle import RESERVES_NOTHING, Action, ChangeState, placing, require_transition
from control_plane.review import COMMENTS_MAX, Change, ChangeEvent, EtagMismatchError, Step
from control_plane.sqlite_tables import SCHEMA
from templates.names import TemplateRef
from templates.reasons import AgentFactoryError, Reason

changes: Final = sa.Table(
    "changes",
    SCHEMA,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("state", sa.String),
    sa.Column("domain", sa.String),
    sa.Column("name", sa.String),
    sa.Column("version", sa.String),
    sa.Column("sha256", sa.String),
    sa.Column("author", sa.String),
    sa.Column("created_at", sa.Integer),
    sa.Column("filename", sa.String),
    sa.Column("document", sa.LargeBinary),
    sa.Column("resolved", sa.LargeBinary),
    sa.Column("statement", sa.LargeBinary),
    sa.Column("code_sha256", sa.String),
    sa.Column("request_id", sa.String),
    sa.Column("envelope", sa.LargeBinary),
    sa.Column("state_reason", sa.String),
    sa.Column("generation", sa.Integer),
    sa.Column("warnings", sa.JSON),
    sa.Column("revision", sa.Integer),
    sa.Column("updated_at", sa.Integer),
)
_events: Final = sa.Table(
    "change_events",
    SCHEMA,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("change", sa.Integer),
    sa.Column("at", sa.Integer),
    sa.Column("person", sa.String),
    sa.Column("action", sa.String),
    sa.Column("before", sa.String),
    sa.Column("after", sa.String),
    sa.Column("text", sa.String),
)


class CommentsExhaustedError(AgentFactoryError):
    """This change has as many comments as a change may have."""

    reason = Reason.COMMENTS_EXHAUSTED

    def __init__(self, change: Change) -> None:
        super().__init__(f"expected at most {COMMENTS_MAX} comments on {change.name}")


def insert(connection: Connection, change: Change) -> int:
    """Store a new change with the first line of its history, and return its number."""
    action = Action.DRAFT if change.state is ChangeState.DRAFT else Action.SUBMIT
    require_transition(None, action, change.state, name=str(change.ref))
    values = {key: value for key, value in _values(change).items() if key != "number"}
    key = connection.execute(sa.insert(changes).values(values)).inserted_primary_key
    number = int(key[0]) if key is not None else 0
    _record(
        connection,
        number,
        action=action,
        before=None,
        after=change.state,
        by=(change.author,),
        text=change.sha256,
        at=change.created_at,
    )
    return number


def write(connection: Connection, step: Step) -> None:
    """Carry out ``step`` on the stored change, and add to its history.

    Raises:
        TransitionRefusedError: the table does not allow it.
        EtagMismatchError: what is stored is not what the step was decided on.
        CommentsExhaustedError: one comment too many.
    """
    change = step.change
    require_transition(step.before, step.action, change.state, name=change.name)
    if step.action is Action.COMMENT and _comments(connection, change.number) >= COMMENTS_MAX:
        raise CommentsExhaustedError(change)
    done = connection.execute(
        sa.update(changes)
        .where(
            (changes.c.number == change.number)
            & (changes.c.revision == change.revision - 1)
            & (changes.c.state == str(step.before))
        )
        .values(_values(change))
    )
    if done.rowcount != 1:
        raise EtagMismatchError(change.name, expected="another", got=f"{change.number}.{change.revision - 1}")
    _record(
        connection,
        change.number,
        action=step.action,
        before=step.before,
        after=change.state,
        by=step.by,
        text=step.text,
        at=step.at,
    )


def place(
    connection: Connection, states: Mapping[TemplateRef, ChangeState], *, by: str, cause: str, at: datetime
) -> None:
    """Give published versions the states that a generation gives them; who has its state already is left alone."""
    for ref, to in states.items():
        row = connection.execute(sa.select(changes.c.number, changes.c.state).where(is_version(ref))).first()
        if row is None or row.state == str(to):
            continue
        before = ChangeState(row.state)
        action = placing(before, to)
        require_transition(before, action, to, name=f"changes/{row.number}")
        connection.execute(
            sa.update(changes)
            .where(changes.c.number == row.number)
            .values(state=str(to), revision=changes.c.revision + 1, updated_at=int(at.timestamp()))
        )
        _record(connection, row.number, action=action, before=before, after=to, by=(by,), text=cause, at=at)


def events(connection: Connection, number: int, *, after: int = 0, limit: int = 100) -> list[ChangeEvent]:
    """Return the history of a change, oldest first, from the line after ``after``."""
    query = (
        sa.select(_events)
        .where((_events.c.change == number) & (_events.c.number > after))
        .order_by(_events.c.number)
        .limit(limit)
    )
    return [_event(row) for row in connection.execute(query)]


def is_version(ref: TemplateRef) -> sa.ColumnElement[bool]:
    """Whether a row is the change that holds this version: drafts, rejected and withdrawn ones hold none."""
    return _is_called(ref) & changes.c.state.not_in([str(state) for state in RESERVES_NOTHING])


def is_draft(author: str, ref: TemplateRef) -> sa.ColumnElement[bool]:
    """Whether a row is the draft that ``author`` has of this version."""
    return _is_called(ref) & (changes.c.author == author) & (changes.c.state == str(ChangeState.DRAFT))


def change_of(row: Row[Any]) -> Change:
    return Change(
        number=row.number,
        state=ChangeState(row.state),
        ref=TemplateRef.parse(f"{row.domain}/{row.name}@{row.version}"),
        sha256=row.sha256,
        author=row.author,
        created_at=datetime.fromtimestamp(row.created_at, UTC),
        filename=row.filename,
        document=row.document,
        resolved=row.resolved,
        statement=row.statement,
        code_sha256=row.code_sha256,
        request_id=row.request_id,
        envelope=row.envelope,
        state_reason=row.state_reason,
        generation=row.generation,
        warnings=tuple(row.warnings),
        revision=row.revision,
        updated_at=datetime.fromtimestamp(row.updated_at, UTC),
    )


def _is_called(ref: TemplateRef) -> sa.ColumnElement[bool]:
    return (changes.c.domain == ref.domain) & (changes.c.name == ref.name) & (changes.c.version == str(ref.version))


def _comments(connection: Connection, number: int) -> int:
    counted = sa.select(sa.func.count()).where((_events.c.change == number) & (_events.c.action == str(Action.COMMENT)))
    return int(connection.execute(counted).scalar_one())


def _record(
    connection: Connection,
    number: int,
    *,
    action: Action,
    before: ChangeState | None,
    after: ChangeState,
    by: tuple[str, ...],
    text: str,
    at: datetime,
) -> None:
    line = {
        "change": number,
        "at": int(at.timestamp()),
        "action": str(action),
        "before": None if before is None else str(before),
        "after": str(after),
        "text": text,
    }
    connection.execute(sa.insert(_events), [{**line, "person": person} for person in by])


def _event(row: Row[Any]) -> ChangeEvent:
    return ChangeEvent(
        number=row.number,
        change=row.change,
        at=datetime.fromtimestamp(row.at, UTC),
        by=row.person,
        action=Action(row.action),
        before=None if row.before is None else ChangeState(row.before),
        after=ChangeState(row.after),
        text=row.text,
    )


def _values(change: Change) -> dict[str, object]:
    return {
        "number": change.number,
        "state": str(change.state),
        "domain": change.ref.domain,
        "name": change.ref.name,
        "version": str(change.ref.version),
        "sha256": change.sha256,
        "author": change.author,
        "created_at": int(change.created_at.timestamp()),
        "filename": change.filename,
        "document": change.document,
        "resolved": change.resolved,
        "statement": change.statement,
        "code_sha256": change.code_sha256,
        "request_id": change.request_id,
        "envelope": change.envelope,
        "state_reason": change.state_reason,
        "generation": change.generation,
        "warnings": list(change.warnings),
        "revision": change.revision,
        "updated_at": int((change.updated_at or change.created_at).timestamp()),
    }
