"""Answers to request ids in SQLite, written in the transaction of the effect that they answer (ADR 19)."""

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from control_plane.mutation import Answered, Asked, require_same
from control_plane.sqlite_tables import SCHEMA

_answers = sa.Table(
    "answers",
    SCHEMA,
    sa.Column("person", sa.String, primary_key=True),
    sa.Column("request_id", sa.String, primary_key=True),
    sa.Column("method", sa.String),
    sa.Column("sha256", sa.String),
    sa.Column("response", sa.LargeBinary),
    sa.Column("answered_at", sa.Integer),
)


def remember(connection: Connection, answered: Answered | None) -> None:
    """Store an answer, if it has an id. Every mutation's transaction calls this last, whether it has one or not.

    An answer that is there already stays: it was given first.

    Raises:
        RequestIdReusedError: the id belongs to another request of this person; the effect is undone.
    """
    if answered is None or not answered.asked.request_id:
        return
    asked = answered.asked
    if answer_to(connection, asked) is not None:
        return
    connection.execute(
        sa.insert(_answers).values(
            person=asked.person,
            request_id=asked.request_id,
            method=asked.method,
            sha256=asked.sha256,
            response=answered.response,
            answered_at=int(answered.at.timestamp()),
        )
    )


def answer_to(connection: Connection, asked: Asked) -> Answered | None:
    """Return what was answered to this request.

    Raises:
        RequestIdReusedError: the id belongs to another request of this person.
    """
    row = connection.execute(
        sa.select(_answers).where((_answers.c.person == asked.person) & (_answers.c.request_id == asked.request_id))
    ).first()
    if row is None:
        return None
    earlier = Asked(person=row.person, method=row.method, request_id=row.request_id, sha256=row.sha256)
    require_same(asked, earlier)
    return Answered(asked=earlier, response=row.response, at=datetime.fromtimestamp(row.answered_at, UTC))


def forget(connection: Connection, *, before: datetime) -> int:
    """Forget the answers that were given before this moment; return how many."""
    done = connection.execute(sa.delete(_answers).where(_answers.c.answered_at < int(before.timestamp())))
    return int(done.rowcount)
