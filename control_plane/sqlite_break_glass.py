"""Broken glasses in the control plane's SQLite (ADR 5, ADR 21). What has returned is on the disk; these calls block.

Each of them is told to the audit log in the transaction that stores it.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from control_plane import sqlite_answers
from control_plane.audit import Decision
from control_plane.break_glass import BreakGlass, Use
from control_plane.mutation import Answered
from control_plane.sqlite_store import SqliteStore
from control_plane.sqlite_tables import SCHEMA
from templates.names import TemplateRef

_OPEN_AT_ONCE_MAX = 100

_glasses = sa.Table(
    "break_glass",
    SCHEMA,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("template", sa.String),
    sa.Column("why", sa.String),
    sa.Column("minutes", sa.Integer),
    sa.Column("opened_by", sa.String),
    sa.Column("opened_at", sa.Integer),
    sa.Column("confirmed_by", sa.String),
    sa.Column("confirmed_at", sa.Integer),
    sa.Column("closed_by", sa.String),
    sa.Column("closed_at", sa.Integer),
    sa.Column("uses", sa.JSON),
)


class SqliteBreakGlass:
    """Lives in the database of ``store``, which opened and migrated it."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def add(self, glass: BreakGlass, *, answer: Callable[[BreakGlass], Answered] | None = None) -> BreakGlass:
        """Store a new one and return it with its number; ``answer`` is called with it, for the request's id."""
        values = {key: value for key, value in _values(glass).items() if key != "number"}
        with self._store.writing() as connection:
            number = connection.execute(sa.insert(_glasses).values(values).returning(_glasses.c.number)).scalar_one()
            stored = replace(glass, number=number)
            self._store.record(connection, _decision(stored))
            sqlite_answers.remember(connection, answer(stored) if answer else None)
            return stored

    def save(self, glass: BreakGlass, *, answered: Answered | None = None) -> None:
        with self._store.writing() as connection:
            connection.execute(sa.update(_glasses).where(_glasses.c.number == glass.number).values(_values(glass)))
            self._store.record(connection, _decision(glass))
            sqlite_answers.remember(connection, answered)

    def get(self, number: int) -> BreakGlass | None:
        with self._store.reading() as connection:
            row = connection.execute(sa.select(_glasses).where(_glasses.c.number == number)).first()
            return None if row is None else _glass(row)

    def not_closed(self, ref: TemplateRef) -> list[BreakGlass]:
        """Return those for ``ref`` that were confirmed and not closed, newest first; some have lapsed."""
        wanted = (
            (_glasses.c.template == str(ref)) & _glasses.c.confirmed_at.is_not(None) & _glasses.c.closed_at.is_(None)
        )
        query = sa.select(_glasses).where(wanted).order_by(_glasses.c.number.desc()).limit(_OPEN_AT_ONCE_MAX)
        with self._store.reading() as connection:
            return [_glass(row) for row in connection.execute(query)]

    def all(self, *, before: int | None = None, limit: int = 100) -> list[BreakGlass]:
        """Return all, newest first, with numbers below ``before``."""
        query = sa.select(_glasses).order_by(_glasses.c.number.desc()).limit(limit)
        if before is not None:
            query = query.where(_glasses.c.number < before)
        with self._store.reading() as connection:
            return [_glass(row) for row in connection.execute(query)]


def _decision(glass: BreakGlass) -> Decision:
    """Tell of a broken glass as it now is; of the last action that it let through, which and which policies."""
    details = {
        "template": str(glass.ref),
        "minutes": str(glass.minutes),
        "opened_by": glass.opened_by,
        "confirmed_by": glass.confirmed_by,
        "closed_by": glass.closed_by,
        "uses": str(len(glass.uses)),
    }
    if glass.uses:
        last = glass.uses[-1]
        details |= {"last_use": last.action, "last_person": last.person, "last_policies": ",".join(last.policies)}
    return Decision(resource=glass.name, reason=glass.why, details=details)


def _values(glass: BreakGlass) -> dict[str, object]:
    return {
        "number": glass.number,
        "template": str(glass.ref),
        "why": glass.why,
        "minutes": glass.minutes,
        "opened_by": glass.opened_by,
        "opened_at": _seconds(glass.opened_at),
        "confirmed_by": glass.confirmed_by,
        "confirmed_at": _seconds(glass.confirmed_at),
        "closed_by": glass.closed_by,
        "closed_at": _seconds(glass.closed_at),
        "uses": [
            {"at": _seconds(use.at), "action": use.action, "person": use.person, "policies": list(use.policies)}
            for use in glass.uses
        ],
    }


def _glass(row: Row[Any]) -> BreakGlass:
    return BreakGlass(
        number=row.number,
        ref=TemplateRef.parse(row.template),
        why=row.why,
        minutes=row.minutes,
        opened_by=row.opened_by,
        opened_at=_moment(row.opened_at),
        confirmed_by=row.confirmed_by,
        confirmed_at=None if row.confirmed_at is None else _moment(row.confirmed_at),
        closed_by=row.closed_by,
        closed_at=None if row.closed_at is None else _moment(row.closed_at),
        uses=tuple(
            Use(at=_moment(use["at"]), action=use["action"], person=use["person"], policies=tuple(use["policies"]))
            for use in row.uses
        ),
    )


def _seconds(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp())


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
