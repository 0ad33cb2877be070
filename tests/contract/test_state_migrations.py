"""A control plane that was set up by an older version: everything that it accepted is there after the upgrade."""

import importlib
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations

from control_plane.lifecycle import Action, ChangeState
from control_plane.sqlite_store import SqliteStore

CREATED = 1_900_000_000
FIRST: ModuleType = importlib.import_module("control_plane.migrations.versions.0001_first")


def make_first_schema(path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        FIRST.upgrade()
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('0001')")
    engine.dispose()


def add_old_change(path: Path, version: str, state: str, *, reason: str = "", request_id: str = "") -> None:
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute(
            "INSERT INTO changes (state, domain, name, version, sha256, author, created_at, filename, document,"
            " resolved, statement, code_sha256, request_id, envelope, reject_reason, generation, warnings)"
            " VALUES (?, 'docs', 'echo', ?, 'abc', 'alice', ?, 'f', x'7b', x'7b', x'7b', NULL, ?, x'65', ?, 3, '[]')",
            (state, version, CREATED, request_id, reason),
        )


def test_what_an_older_version_accepted_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    make_first_schema(path)
    add_old_change(path, "1.0.0", "REJECTED", reason="bob: no")
    add_old_change(path, "1.0.0", "ACTIVE", request_id="made-by-hand")
    add_old_change(path, "1.1.0", "IN_REVIEW")
    for _ in range(2):  # the second time there is nothing to do
        store = SqliteStore.open(path)
        old = {each.number: each for each in store.changes()}
        assert [old[number].state for number in (1, 2, 3)] == [
            ChangeState.REJECTED, ChangeState.ACTIVE, ChangeState.IN_REVIEW,
        ]  # fmt: skip
        assert old[1].state_reason == "bob: no"
        assert {(each.revision, each.envelope, each.generation) for each in old.values()} == {(1, b"e", 3)}
        assert {each.updated_at for each in old.values()} == {datetime.fromtimestamp(CREATED, UTC)}
        kept = store.change_of_request("alice", "made-by-hand")
        assert kept is not None
        assert kept.number == 2
        for number in old:
            (began,) = store.events(number)
            assert (began.by, began.action, began.before, began.text) == ("alice", Action.SUBMIT, None, "abc")
        store.close()
