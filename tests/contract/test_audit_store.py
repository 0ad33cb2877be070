"""What the audit log's records promise: written with their effect, whole, and refused any change by SQLite itself."""

import asyncio
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

import control_plane
from control_plane import sqlite_audit
from control_plane.audit import Call, Decision, acting
from control_plane.audit_log import AuditLog, AuditTerms
from control_plane.sqlite_audit import Wanted
from control_plane.sqlite_store import SqliteStore
from service.telemetry import Telemetry
from templates.audit_entry import Outcome, read_audit_entry
from templates.audit_verification import FindingKind, Witnessed
from tests.audit_lines import audit_entries, audit_lines
from tests.installation import LocalInstallation, make_installation

OWN = "spiffe://factory.test/control-plane/one"
ALICE = Call(principal="spiffe://factory.test/person/alice", roles=("person",), address="10.0.0.1", action="A/Do")


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def store(path: Path, clock: Clock) -> Iterator[SqliteStore]:
    opened = SqliteStore.open(path, clock=clock, own=OWN)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> LocalInstallation:
    return make_installation(tmp_path_factory.mktemp("kept") / "one")


@pytest.fixture
def audit_log(store: SqliteStore, installation: LocalInstallation, clock: Clock) -> AuditLog:
    return AuditLog(
        store=store,
        terms=AuditTerms(
            signer=installation.online.snapshot,
            environment="test",
            own=OWN,
            checkpoint_every_s=60.0,
            retention=timedelta(days=365),
        ),
        roots=lambda: installation.trust.roots,
        telemetry=Telemetry(),
        clock=clock,
    )


def write(store: SqliteStore, **members: Any) -> None:
    with acting(ALICE), store.writing() as connection:
        store.record(connection, Decision(**members))


def test_a_new_log_begins_by_saying_so(store: SqliteStore, path: Path) -> None:
    (entry,) = audit_entries(path)
    assert (entry["action"], entry["principal"]) == ("AuditLog/Begin", OWN)
    assert entry["details"] == {"changes": "0", "generation": "0"}


def _fail_after_recording(store: SqliteStore) -> None:
    ALICE.recorded = 0
    with acting(ALICE), store.writing() as connection:
        store.record(connection, Decision(resource="changes/1"))
        connection.exec_driver_sql("INSERT INTO metadata (file, content) VALUES ('x', NULL)")


def test_an_entry_is_there_with_its_effect_or_not_at_all(store: SqliteStore, path: Path) -> None:
    with pytest.raises(sa.exc.IntegrityError):
        _fail_after_recording(store)
    assert ALICE.recorded == 0, "what was undone was not recorded"
    assert len(audit_entries(path)) == 1
    write(store, resource="changes/1")
    assert audit_entries(path)[1]["resource"] == "changes/1"
    assert audit_entries(path)[1]["sequence"] == 2


def test_every_field_is_cut_and_cleaned_to_what_the_published_shape_allows(store: SqliteStore, path: Path) -> None:
    loud = Call(principal="p" * 9_000, roles=["r" * 900] * 900, address="a" * 900, action="A/Do")
    with acting(loud), store.writing() as connection:
        store.record(
            connection,
            Decision(
                resource="x\n\x1b[31m" * 900,
                reason="line\nline\t" * 900,
                details={f"n{number}": "d" * 9_000 for number in range(99)},
                outcome=Outcome.REFUSED,
                code="SOME_CODE",
            ),
        )
    entry = read_audit_entry(audit_lines(path)[-1])
    assert "\n" not in entry.reason + entry.resource
    assert "\x1b" not in entry.resource


TAMPERING: dict[str, str] = {
    "edit": "UPDATE audit_entries SET line = '{}' WHERE sequence = 1",
    "edit the digest": "UPDATE audit_entries SET sha256 = 'x' WHERE sequence = 1",
    "delete": "DELETE FROM audit_entries WHERE sequence = 1",
    "delete all": "DELETE FROM audit_entries",
    "replace": "INSERT OR REPLACE INTO audit_entries (sequence, sha256, line) VALUES (1, 'x', '{}')",
    "update or replace": "UPDATE OR REPLACE audit_entries SET sequence = 1 WHERE sequence = 2",
    "upsert": "INSERT INTO audit_entries (sequence, sha256, line) VALUES (1, 'x', '{}')"
    " ON CONFLICT (sequence) DO UPDATE SET line = '{}'",
    "leave a gap": "INSERT INTO audit_entries (sequence, sha256, line) VALUES (99, 'x', '{}')",
    "put before": "INSERT INTO audit_entries (sequence, sha256, line) VALUES (0, 'x', '{}')",
    "edit a checkpoint": "UPDATE audit_checkpoints SET document = ''",
    "delete a checkpoint": "DELETE FROM audit_checkpoints",
    "replace a checkpoint": "INSERT OR REPLACE INTO audit_checkpoints VALUES (2, 'x', 0, '')",
    "remove without a checkpoint": "INSERT INTO audit_removals VALUES (1)",
    "undo a removal": "DELETE FROM audit_removals",
}


@pytest.mark.parametrize("statement", TAMPERING.values(), ids=TAMPERING.keys())
async def test_sqlite_itself_refuses_to_change_the_log(
    statement: str, store: SqliteStore, audit_log: AuditLog, clock: Clock, path: Path
) -> None:
    write(store)
    await audit_log.sign()
    if "removal" in statement and statement.startswith("DELETE"):
        clock.now += timedelta(days=400)
        write(store)
        assert await audit_log.remove_old() == 2
    before = audit_lines(path)
    with closing(sqlite3.connect(path)) as connection:
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(statement)
        connection.commit()
    assert audit_lines(path) == before


async def test_old_entries_go_up_to_a_checkpoint_that_stands_for_them(
    store: SqliteStore, audit_log: AuditLog, clock: Clock, path: Path
) -> None:
    for _ in range(3):
        write(store)
    await audit_log.sign()  # entry 4
    write(store)
    assert await audit_log.remove_old() == 0, "nothing is old"
    clock.now += timedelta(days=366)
    write(store)
    await audit_log.sign()
    assert await audit_log.remove_old() == 4
    entries = audit_entries(path)
    assert [entry["sequence"] for entry in entries] == [5, 6, 7]
    assert entries[-1]["action"] == "AuditLog/Remove"
    assert entries[-1]["details"] == {"through": "4", "retention_days": "365"}
    verdict, newest = await audit_log.verify([])
    assert verdict.findings == ()
    assert (verdict.first, verdict.last, verdict.removed) == (5, 7, 4)
    assert newest is not None
    assert newest.sequence == 7
    assert await audit_log.remove_old() == 0
    clock.now += timedelta(days=366)
    write(store)
    assert await audit_log.remove_old() == 3, "the newest entries stay, however old they are"
    assert (await audit_log.verify([]))[0].is_whole


def untriggered(path: Path, *statements: str) -> None:
    """What an attacker does who has the file: the triggers go first."""
    with closing(sqlite3.connect(path)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
        connection.commit()


FILE_TAMPERING: dict[str, tuple[FindingKind, int, str]] = {
    "edit": (
        FindingKind.EDITED,
        5,
        "UPDATE audit_entries SET line = replace(line, 'person/alice', 'person/mallo') WHERE sequence = 5",
    ),
    "delete": (FindingKind.MISSING, 5, "DELETE FROM audit_entries WHERE sequence = 5"),
    "truncate": (FindingKind.MISSING, 9, "DELETE FROM audit_entries WHERE sequence >= 9"),
    "cut the beginning": (FindingKind.MISSING, 3, "DELETE FROM audit_entries WHERE sequence <= 4"),
    "truncate with checkpoints": (
        FindingKind.CHECKPOINT,
        10,
        "UPDATE audit_checkpoints SET document = replace(document, 'A', 'B') WHERE sequence = 10",
    ),
}


@pytest.mark.parametrize(("kind", "place", "statement"), FILE_TAMPERING.values(), ids=FILE_TAMPERING.keys())
async def test_what_is_done_to_the_file_is_found_and_named(
    kind: FindingKind, place: int, statement: str, store: SqliteStore, audit_log: AuditLog, path: Path
) -> None:
    for number in range(9):
        write(store, resource=f"changes/{number}")
        if number == 4:
            await audit_log.sign()
    await audit_log.sign()
    assert (await audit_log.verify([]))[0].is_whole
    untriggered(path, statement)
    verdict, _ = await audit_log.verify([])
    assert any(each.kind is kind and each.first <= place <= each.last for each in verdict.findings), verdict.findings


async def test_a_cut_end_is_noted_at_the_next_start(store: SqliteStore, audit_log: AuditLog, path: Path) -> None:
    for _ in range(3):
        write(store)
    await audit_log.sign()
    untriggered(path, "DELETE FROM audit_entries WHERE sequence > 2")
    await audit_log.start(generation=7)
    entries = audit_entries(path)
    assert [entry["action"] for entry in entries[-2:]] == ["AuditLog/FindBroken", "ControlPlane/Start"]
    assert entries[-2]["outcome"] == "FAILED"
    verdict, _ = await audit_log.verify([])
    assert not verdict.is_whole


async def test_what_nodes_saw_is_compared(store: SqliteStore, audit_log: AuditLog) -> None:
    write(store)
    await audit_log.sign()
    other = Witnessed(node="node-1", sequence=2, entry_sha256="c" * 64)
    verdict, _ = await audit_log.verify([other])
    assert [(each.kind, each.first) for each in verdict.findings] == [(FindingKind.WITNESS, 2)]


def test_filters_match_whole_names_and_their_parts_and_nothing_else(store: SqliteStore) -> None:
    write(store, resource="changes/1", action="ChangeService/ApproveChange")
    write(store, resource="changes/2", action="ChangeService/RejectChange", code="X", outcome=Outcome.REFUSED)
    write(store, resource="changes/3", action="RolloutService/Revoke")

    def found(**wanted: Any) -> list[str]:
        with store.reading() as connection:
            rows = sqlite_audit.entries(connection, Wanted(**wanted), before=None, limit=100)
        return [json.loads(row.line)["resource"] for row in rows]

    assert found(action="ChangeService/ApproveChange") == found(action="ApproveChange") == ["changes/1"]
    assert found(action="ChangeService") == ["changes/2", "changes/1"]
    assert found(principal="alice") == found(principal=ALICE.principal) == ["changes/3", "changes/2", "changes/1"]
    assert found(principal="lice") == found(principal="%") == found(principal="' OR 1=1 --") == []
    assert found(outcome="REFUSED") == found(code="X") == found(resource="changes/2") == ["changes/2"]
    assert found(since=datetime(2031, 1, 1, tzinfo=UTC)) == []
    assert len(found(until=datetime(2031, 1, 1, tzinfo=UTC))) == 4


async def test_where_nothing_can_be_written_the_process_goes_on_and_signs_later(
    store: SqliteStore, audit_log: AuditLog, path: Path
) -> None:
    write(store)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON audit_checkpoints BEGIN SELECT RAISE(FAIL, 'full'); END"
        )
        connection.commit()
        await audit_log.close()
        keeping = asyncio.ensure_future(audit_log.keep())
        await asyncio.sleep(0.3)
        assert not keeping.done()
        keeping.cancel()
        connection.execute("DROP TRIGGER full")
        connection.commit()
    await audit_log.close()
    assert (await audit_log.verify([]))[0].is_whole


def test_many_writers_make_one_chain(store: SqliteStore, path: Path) -> None:
    def work() -> None:
        for _ in range(25):
            write(store)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = audit_entries(path)
    assert [entry["sequence"] for entry in entries] == list(range(1, 202))


def test_a_database_of_the_first_schema_migrates_and_says_what_it_held(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "old.db"
    engine = sa.create_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", str(Path(control_plane.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql(
            "INSERT INTO generations (number, created_at, cause, author, plan, bundle_sha256)"
            " VALUES (7, 0, '', '', x'', '')"
        )
    engine.dispose()
    for _ in range(2):
        store = SqliteStore.open(path, clock=clock, own=OWN)
        (entry,) = audit_entries(path)
        assert entry["details"] == {"changes": "0", "generation": "7"}
        store.close()


def test_searches_use_their_indexes(store: SqliteStore, path: Path) -> None:
    searches: dict[str, Callable[[], Wanted]] = {
        "audit_entries_by_resource": lambda: Wanted(resource="changes/1"),
        "audit_entries_by_code": lambda: Wanted(code="X"),
    }
    with closing(sqlite3.connect(path)) as connection:
        for index, wanted in searches.items():
            conditions, parameters = wanted().conditions()
            plan = connection.execute(
                f"EXPLAIN QUERY PLAN SELECT line FROM audit_entries WHERE {conditions[0]} ORDER BY sequence DESC",
                parameters,
            ).fetchall()
            assert index in str(plan)
