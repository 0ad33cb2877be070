"""What `control_plane.sqlite_store` promises: what returned is on the disk, a generation whole or not at all."""

import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from control_plane.fleet import NodeView, Refusal
from control_plane.lifecycle import Action, ChangeState, TransitionRefusedError
from control_plane.mutation import Answered, Asked, RequestIdReusedError
from control_plane.push import Stage
from control_plane.review import Change, EtagMismatchError, Step
from control_plane.sqlite_changes import CommentsExhaustedError
from control_plane.sqlite_store import GenerationRecord, SignedState, SqliteStore
from templates.names import TemplateRef
from templates.plan import Plan, PlanEntry

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore.open(tmp_path / "state.db")
    yield opened
    opened.close()


def change(ref: str = "docs/echo@1.0.0", **members: object) -> Change:
    base = Change(
        number=0,
        state=ChangeState.IN_REVIEW,
        ref=TemplateRef.parse(ref),
        sha256="a" * 64,
        author="alice",
        created_at=NOW,
        filename="template.json",
        document=b"{}",
        resolved=b"{ }",
        statement=b"{  }",
        code_sha256="b" * 64,
        request_id="",
        warnings=("no examples",),
        updated_at=NOW,
    )
    return replace(base, **members)  # type: ignore[arg-type]


def step(stored: Change, action: Action, state: ChangeState, **members: object) -> Step:
    after = replace(stored, state=state, revision=stored.revision + 1, **members)  # type: ignore[arg-type]
    return Step(before=stored.state, change=after, action=action, by=("bob",), text="why", at=NOW)


ASKED = Asked(person="alice", method="agentfactory.admin.v1.SubmitHeader", request_id="id", sha256="e" * 64)


def answered(response: bytes = b"answer") -> Answered:
    return Answered(asked=ASKED, response=response, at=NOW)


def signed(number: int, *refs: str, **files: bytes) -> SignedState:
    entries = tuple(PlanEntry(template=TemplateRef.parse(ref), sha256="a" * 64) for ref in refs)
    return SignedState(
        generation=GenerationRecord(
            number=number,
            created_at=NOW,
            cause=f"cause {number}",
            author="bob",
            plan=Plan(environment="test", entries=entries),
            bundle_sha256=f"{number:064x}",
        ),
        metadata={"timestamp.json": b"t", **files},
        belief=b"belief",
        trust={"1.root.json": b"r"},
    )


def test_a_change_is_read_as_it_was_written(store: SqliteStore) -> None:
    written = change()
    number = store.add_change(written, report=("c" * 64, b"report"))
    assert store.change(number) == replace(written, number=number)
    assert store.change_of_version(written.ref) == replace(written, number=number)
    assert store.report("c" * 64) == b"report"
    assert store.report("d" * 64) is None
    assert store.change(number + 1) is None


def test_numbers_are_never_used_again(store: SqliteStore) -> None:
    assert [store.add_change(change(f"docs/echo@1.0.{patch}")) for patch in range(3)] == [1, 2, 3]


def test_one_change_per_version_and_per_request(store: SqliteStore) -> None:
    first = store.add_change(change(request_id="r"))
    with pytest.raises(sa.exc.IntegrityError):
        store.add_change(change())
    with pytest.raises(sa.exc.IntegrityError):
        store.add_change(change("docs/other@1.0.0", request_id="r"))
    store.add_change(change("docs/other@1.0.0", request_id="r", author="bob"))
    stored = store.change_of_request("alice", "r")
    assert stored is not None
    assert stored.number == first
    store.save_step(step(stored, Action.REJECT, ChangeState.REJECTED))
    assert store.change_of_version(stored.ref) is None
    store.add_change(change())


def test_changes_are_listed_newest_first_in_pages(store: SqliteStore) -> None:
    for patch in range(5):
        store.add_change(change(f"docs/echo@1.0.{patch}"))
    assert [each.number for each in store.changes(limit=2)] == [5, 4]
    assert [each.number for each in store.changes(before=4, limit=2)] == [3, 2]
    assert store.changes(states={ChangeState.ACTIVE}) == []
    assert len(store.changes(states={ChangeState.ACTIVE, ChangeState.IN_REVIEW})) == 5


def test_a_generation_is_read_as_it_was_committed(store: SqliteStore) -> None:
    assert store.signed_state() is None
    number = store.add_change(change())
    written = replace(change(), number=number)
    state = signed(1, "docs/echo@1.0.0", **{"1.snapshot.json": b"s"})
    store.commit_generation(
        state,
        steps=[step(written, Action.APPROVE, ChangeState.APPROVED, envelope=b"e", generation=1)],
        states={written.ref: ChangeState.ACTIVE},
        bundles_kept=8,
    )
    assert store.signed_state() == state
    assert store.generation(1) == state.generation
    assert store.generation(2) is None
    (published,) = store.published()
    assert (published.state, published.envelope) == (ChangeState.ACTIVE, b"e")
    assert store.referenced_blobs() == {"b" * 64, f"{1:064x}"}


def test_the_newest_generation_replaces_the_files_of_the_one_before(store: SqliteStore) -> None:
    store.commit_generation(signed(1, old=b"1", both=b"1"), states={}, bundles_kept=8)
    store.commit_generation(signed(2, new=b"2", both=b"2"), states={}, bundles_kept=8)
    state = store.signed_state()
    assert state is not None
    assert state.metadata == {"timestamp.json": b"t", "new": b"2", "both": b"2"}
    assert [each.number for each in store.generations()] == [2, 1]
    assert [each.number for each in store.generations(before=2)] == [1]


def test_a_generation_is_stored_whole_or_not_at_all(store: SqliteStore) -> None:
    store.commit_generation(signed(1), states={}, bundles_kept=8)
    waiting = change(number=store.add_change(change()))
    with pytest.raises(sa.exc.IntegrityError):
        store.commit_generation(
            signed(2, "docs/echo@1.0.0"),
            steps=[step(waiting, Action.APPROVE, ChangeState.APPROVED, document=None)],
            states={},
            bundles_kept=8,
        )
    state = store.signed_state()
    assert state is not None
    assert state.generation.number == 1
    assert store.change(waiting.number) == waiting
    assert len(store.events(waiting.number)) == 1, "its submission"


def test_a_step_on_what_has_moved_is_refused_and_writes_nothing(store: SqliteStore) -> None:
    first = change(number=store.add_change(change()))
    store.save_step(step(first, Action.COMMENT, first.state))
    late = step(first, Action.REJECT, ChangeState.REJECTED)
    with pytest.raises(EtagMismatchError):
        store.save_step(late, answered=answered())
    with pytest.raises(EtagMismatchError):
        store.commit_generation(signed(1), steps=[late], states={}, bundles_kept=8, answered=answered())
    assert store.signed_state() is None
    assert store.answer_to(ASKED) is None
    assert [each.action for each in store.events(first.number)] == [Action.SUBMIT, Action.COMMENT]


def test_the_table_is_applied_to_what_is_written_whoever_asks(store: SqliteStore) -> None:
    waiting = change(number=store.add_change(change()))
    for action, state in (
        (Action.DEPRECATE, ChangeState.DEPRECATED),
        (Action.APPROVE, ChangeState.REVOKED),
        (Action.COMMENT, ChangeState.ACTIVE),
    ):
        with pytest.raises(TransitionRefusedError):
            store.save_step(step(waiting, action, state))
    with pytest.raises(TransitionRefusedError):
        store.commit_generation(signed(1), states={waiting.ref: ChangeState.ACTIVE}, bundles_kept=8)
    assert store.change(waiting.number) == waiting
    with pytest.raises(TransitionRefusedError):
        store.add_change(change("docs/other@1.0.0", state=ChangeState.ACTIVE))


def test_history_holds_who_did_what_and_is_only_added_to(store: SqliteStore, tmp_path: Path) -> None:
    waiting = change(number=store.add_change(change()))
    both = replace(step(waiting, Action.APPROVE, ChangeState.APPROVED), by=("bob", "carol"))
    store.commit_generation(signed(1), steps=[both], states={waiting.ref: ChangeState.ACTIVE}, bundles_kept=8)
    store.commit_generation(signed(2), states={waiting.ref: ChangeState.REVOKED}, bundles_kept=8)
    store.commit_generation(signed(3), states={waiting.ref: ChangeState.APPROVED}, bundles_kept=8)
    lines = store.events(waiting.number)
    assert [(each.by, each.action, each.before, each.after, each.text) for each in lines] == [
        ("alice", Action.SUBMIT, None, ChangeState.IN_REVIEW, "a" * 64),
        ("bob", Action.APPROVE, ChangeState.IN_REVIEW, ChangeState.APPROVED, "why"),
        ("carol", Action.APPROVE, ChangeState.IN_REVIEW, ChangeState.APPROVED, "why"),
        ("bob", Action.PLACE, ChangeState.APPROVED, ChangeState.ACTIVE, "cause 1"),
        ("bob", Action.REVOKE, ChangeState.ACTIVE, ChangeState.REVOKED, "cause 2"),
        ("bob", Action.LIFT, ChangeState.REVOKED, ChangeState.APPROVED, "cause 3"),
    ]
    assert store.events(waiting.number, after=lines[3].number) == lines[4:]
    assert store.events(waiting.number, limit=2) == lines[:2]
    with sqlite3.connect(tmp_path / "state.db") as raw:
        for statement in ("UPDATE change_events SET person = 'mallory'", "DELETE FROM change_events"):
            with pytest.raises(sqlite3.IntegrityError, match="only added to"):
                raw.execute(statement)
    raw.close()


def test_a_draft_keeps_nobody_from_its_version_and_an_author_has_one(store: SqliteStore) -> None:
    draft = change(state=ChangeState.DRAFT)
    number = store.add_change(draft)
    store.add_change(replace(draft, author="bob"))
    with pytest.raises(sa.exc.IntegrityError):
        store.add_change(draft)
    assert store.change_of_version(draft.ref) is None
    kept = store.draft_of("alice", draft.ref)
    assert kept is not None
    assert kept.number == number
    taken = store.add_change(change(author="carol"))
    assert store.change_of_version(draft.ref) == change(author="carol", number=taken)
    instead = step(kept, Action.REPLACE, ChangeState.WITHDRAWN)
    store.add_change(replace(draft, document=b"{ }"), instead=instead)
    closed = store.change(number)
    assert closed is not None
    assert closed.state is ChangeState.WITHDRAWN


def test_comments_end_at_their_limit(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control_plane.sqlite_changes.COMMENTS_MAX", 2)
    stored = change(number=store.add_change(change()))
    for _ in range(2):
        said = step(stored, Action.COMMENT, stored.state)
        store.save_step(said)
        stored = said.change
    with pytest.raises(CommentsExhaustedError):
        store.save_step(step(stored, Action.COMMENT, stored.state))
    store.save_step(step(stored, Action.REJECT, ChangeState.REJECTED))


def test_a_write_that_reads_first_waits_for_other_writers(store: SqliteStore) -> None:
    stored = change(number=store.add_change(change()))
    stop = threading.Event()

    def others() -> None:
        while not stop.is_set():
            store.save_nodes([NodeView(id="node-1", seen_at=NOW)])

    writer = threading.Thread(target=others)
    writer.start()
    try:
        for _ in range(100):
            said = step(stored, Action.COMMENT, stored.state)
            store.save_step(said)
            stored = said.change
    finally:
        stop.set()
        writer.join()


def test_an_answer_is_kept_beside_its_effect_until_it_is_forgotten(store: SqliteStore) -> None:
    number = store.add_change(change(), answer=lambda made: answered(str(made.number).encode()))
    found = store.answer_to(ASKED)
    assert found is not None
    assert found.response == str(number).encode()
    assert found.at == NOW
    store.save_answer(answered(b"later"))
    assert store.answer_to(ASKED) == found, "the first answer stays"
    assert store.answer_to(replace(ASKED, person="bob")) is None
    for other in (replace(ASKED, sha256="f" * 64), replace(ASKED, method="another")):
        with pytest.raises(RequestIdReusedError):
            store.answer_to(other)
        with pytest.raises(RequestIdReusedError):
            store.save_answer(replace(found, asked=other))
    assert store.forget_answers(before=NOW) == 0
    assert store.forget_answers(before=NOW + timedelta(seconds=1)) == 1
    assert store.answer_to(ASKED) is None


def test_an_id_of_another_request_undoes_the_effect(store: SqliteStore) -> None:
    waiting = change(number=store.add_change(change()))
    store.save_answer(answered())
    other = replace(answered(), asked=replace(ASKED, sha256="f" * 64))
    with pytest.raises(RequestIdReusedError):
        store.save_step(step(waiting, Action.REJECT, ChangeState.REJECTED), answered=other)
    assert store.change(waiting.number) == waiting


def test_the_same_generation_again_keeps_its_line(store: SqliteStore) -> None:
    store.commit_generation(signed(1), states={}, bundles_kept=8)
    again = signed(1)
    again = replace(again, generation=replace(again.generation, cause="rebuilt", bundle_sha256="f" * 64))
    store.commit_generation(again, states={}, bundles_kept=8)
    (record,) = store.generations()
    assert (record.cause, record.bundle_sha256) == ("cause 1", "f" * 64)


def test_old_bundles_are_let_go(store: SqliteStore) -> None:
    for number in range(1, 6):
        store.commit_generation(signed(number), states={}, bundles_kept=2)
    assert store.referenced_blobs() == {f"{4:064x}", f"{5:064x}"}
    assert len(store.generations()) == 5


def test_a_lease_replaces_timestamp_and_belief_only(store: SqliteStore) -> None:
    store.commit_generation(signed(1, snapshot=b"s"), states={}, bundles_kept=8)
    store.save_lease(b"t2", b"belief 2")
    state = store.signed_state()
    assert state is not None
    assert state.metadata == {"timestamp.json": b"t2", "snapshot": b"s"}
    assert state.belief == b"belief 2"


def test_nodes_are_remembered_as_not_connected(store: SqliteStore) -> None:
    refusal = Refusal(
        generation=3, phase="VERIFY", template="", reason="METADATA_EXPIRED", message="m", retryable=False
    )
    view = NodeView(id="node-1", seen_at=NOW, connected=True, generation=2, stage=Stage.ACTIVE, refusal=refusal)
    store.save_nodes([view])
    store.save_nodes([replace(view, in_flight=7, agents=3)])
    assert store.nodes() == [replace(view, connected=False, agents=3)]


def test_it_is_all_there_for_the_next_process(store: SqliteStore, tmp_path: Path) -> None:
    store.add_change(change())
    store.commit_generation(signed(1), states={}, bundles_kept=8)
    store.close()
    again = SqliteStore.open(tmp_path / "state.db")
    assert again.change(1) is not None
    assert again.signed_state() == signed(1)
    again.close()


def test_writes_are_durable_and_readers_are_not_held_up(store: SqliteStore, tmp_path: Path) -> None:
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    errors: list[BaseException] = []

    def write(start: int) -> None:
        try:
            for number in range(start, start + 10):
                store.add_change(change(f"docs/echo@1.0.{number}"))
        except sa.exc.SQLAlchemyError as error:
            errors.append(error)

    writers = [threading.Thread(target=write, args=(start,)) for start in range(0, 40, 10)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert errors == []
    assert len(store.changes(limit=100)) == 40


def test_a_failed_migration_leaves_no_half_schema(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "state.db")
    connection.execute("CREATE TABLE nodes (id INTEGER)")  # the last table that the first migration makes
    connection.commit()
    connection.close()
    with pytest.raises(sa.exc.OperationalError):
        SqliteStore.open(tmp_path / "state.db")
    connection = sqlite3.connect(tmp_path / "state.db")
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    connection.close()
    assert "changes" not in tables
