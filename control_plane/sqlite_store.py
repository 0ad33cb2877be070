"""The control plane's records in SQLite: WAL, ``synchronous=FULL``, every change of state in one transaction (ADR 5).

What has returned is on the disk. These functions block: callers run them in a thread, and let one writer in at a time.
"""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import Connection, Engine, Row

from control_plane import sqlite_answers, sqlite_audit, sqlite_changes
from control_plane.audit import Call, Decision, current_call
from control_plane.decisions import of_step, of_submission
from control_plane.fleet import NodeView, Refusal
from control_plane.lifecycle import OPEN, ChangeState
from control_plane.mutation import Answered, Asked
from control_plane.push import Stage
from control_plane.review import Change, ChangeEvent, Step
from control_plane.sqlite_changes import change_of, is_draft, is_version
from control_plane.sqlite_changes import changes as _changes
from control_plane.sqlite_tables import SCHEMA
from service.telemetry import current_trace_id
from templates.names import TemplateRef
from templates.plan import Plan, read_plan

_BUSY_TIMEOUT_MS = 5000
_BELIEF_ROW = 1

_inspections = sa.Table(
    "inspections", SCHEMA, sa.Column("sha256", sa.String, primary_key=True), sa.Column("report", sa.LargeBinary)
)
_generations = sa.Table(
    "generations",
    SCHEMA,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("created_at", sa.Integer),
    sa.Column("cause", sa.String),
    sa.Column("author", sa.String),
    sa.Column("plan", sa.LargeBinary),
    sa.Column("bundle_sha256", sa.String),
)
_metadata = sa.Table(
    "metadata", SCHEMA, sa.Column("file", sa.String, primary_key=True), sa.Column("content", sa.LargeBinary)
)
_belief = sa.Table(
    "belief",
    SCHEMA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("content", sa.LargeBinary),
)
_trust = sa.Table("trust", SCHEMA, sa.Column("file", sa.String, primary_key=True), sa.Column("content", sa.LargeBinary))
_nodes = sa.Table(
    "nodes",
    SCHEMA,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("seen_at", sa.Integer),
    sa.Column("view", sa.JSON),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRecord:
    """One generation in the list; ``bundle_sha256`` names the blob with its bundle, kept for the newest ones."""

    number: int
    created_at: datetime
    cause: str
    author: str
    plan: Plan
    bundle_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedState:
    """The newest signed generation, from which the next one is built, and what it was built from.

    ``belief`` is `templates.trusted_set.Belief.to_bytes`: what the control plane's own verification keeps.
    """

    generation: GenerationRecord
    metadata: Mapping[str, bytes]
    belief: bytes
    trust: Mapping[str, bytes]


class SqliteStore:
    """Open it with `open`; it migrates itself to the newest schema in one transaction."""

    def __init__(self, engine: Engine, *, clock: Callable[[], datetime], own: str) -> None:
        self._engine = engine
        self._immediate = engine.execution_options(immediate=True)
        self._writer = threading.RLock()
        self._recorded: list[Call] = []
        self._clock = clock
        self._own = own

    @classmethod
    def open(cls, path: Path, *, clock: Callable[[], datetime] | None = None, own: str = "") -> "SqliteStore":
        """Open the database ``path``, made if missing.

        Args:
            path: the file.
            clock: for the times in the audit log; by default the machine's.
            own: URI of the control plane itself, for what it decides without being asked.
        """
        engine = sa.create_engine(f"sqlite:///{path}")
        sa.event.listen(engine, "connect", _configure)
        sa.event.listen(engine, "begin", _begin)
        with engine.begin() as connection:
            config = Config()
            config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        store = cls(engine, clock=clock or _now, own=own)
        store._begin_log()
        return store

    def _begin_log(self) -> None:
        """Write the first entry of a new audit log: what there was already when it began."""
        with self.writing() as connection:
            if sqlite_audit.head(connection).sequence or sqlite_audit.newest_checkpoint(connection):
                return
            changes = connection.execute(sa.select(sa.func.count()).select_from(_changes)).scalar_one()
            generation = connection.execute(sa.select(sa.func.max(_generations.c.number))).scalar_one()
            facts = {"changes": str(changes), "generation": str(generation or 0)}
            self.record(connection, Decision(action="AuditLog/Begin", details=facts))

    def close(self) -> None:
        self._engine.dispose()

    # Transactions and the audit log

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Begin a transaction that may write: the only one at its time, committed when the block ends well."""
        with self._writer:
            self._recorded.clear()
            with self._immediate.begin() as connection:
                yield connection
            for call in self._recorded:  # what was undone was not recorded
                call.recorded += 1

    def reading(self) -> Connection:
        """Return a connection for reading; a context manager."""
        return self._engine.connect()

    def record(self, connection: Connection, *decisions: Decision | None) -> None:
        """Write decisions into the audit log, in the transaction of their effect; ``connection`` is from `writing`.

        They are those of the call that is being answered, or the control plane's own.
        """
        call = current_call() or Call(principal=self._own)
        for decision in decisions:
            if decision is not None:
                trace_id = call.trace_id or current_trace_id()
                sqlite_audit.append(connection, decision, call=call, at=self._clock(), trace_id=trace_id)
                self._recorded.append(call)

    # Changes

    def add_change(
        self,
        change: Change,
        *,
        report: tuple[str, bytes] | None = None,
        instead: Step | None = None,
        answer: Callable[[Change], Answered] | None = None,
    ) -> int:
        """Store a new change, with the report on a module that was inspected for it, and return its number.

        Args:
            change: with number 0.
            report: digest and report.
            instead: closes the draft whose place the new change takes.
            answer: called with the change as stored.
        """
        with self.writing() as connection:
            if report is not None:
                _upsert(connection, _inspections, {"sha256": report[0], "report": report[1]})
            if instead is not None:
                sqlite_changes.write(connection, instead)
            number = sqlite_changes.insert(connection, change)
            self.record(connection, of_submission(change, number))
            sqlite_answers.remember(connection, answer(replace(change, number=number)) if answer else None)
            return number

    def save_step(self, step: Step, *, answered: Answered | None = None) -> None:
        """Carry out a step that publishes nothing.

        Raises:
            TransitionRefusedError, EtagMismatchError, CommentsExhaustedError: nothing is written.
        """
        with self.writing() as connection:
            sqlite_changes.write(connection, step)
            self.record(connection, of_step(step))
            sqlite_answers.remember(connection, answered)

    def events(self, number: int, *, after: int = 0, limit: int = 100) -> list[ChangeEvent]:
        """Return the history of a change, oldest first."""
        with self._engine.connect() as connection:
            return sqlite_changes.events(connection, number, after=after, limit=limit)

    # Answers to request ids

    def save_answer(self, answered: Answered) -> None:
        """Store the answer to a request that found its effect done already."""
        with self.writing() as connection:
            sqlite_answers.remember(connection, answered)

    def answer_to(self, asked: Asked) -> Answered | None:
        """Return what was answered to this request; raise `RequestIdReusedError` if its id belongs to another."""
        with self._engine.connect() as connection:
            return sqlite_answers.answer_to(connection, asked)

    def forget_answers(self, *, before: datetime) -> int:
        with self.writing() as connection:
            return sqlite_answers.forget(connection, before=before)

    # Reading changes

    def change(self, number: int) -> Change | None:
        return self._one_change(_changes.c.number == number)

    def change_of_version(self, ref: TemplateRef) -> Change | None:
        """Return the change that holds this version: drafts, rejected and withdrawn ones do not."""
        return self._one_change(is_version(ref))

    def draft_of(self, author: str, ref: TemplateRef) -> Change | None:
        return self._one_change(is_draft(author, ref))

    def change_of_request(self, author: str, request_id: str) -> Change | None:
        return self._one_change((_changes.c.author == author) & (_changes.c.request_id == request_id))

    def changes(
        self, *, states: Collection[ChangeState] = (), before: int | None = None, limit: int = 100
    ) -> list[Change]:
        """Return changes in ``states`` (none: in any), newest first, with numbers below ``before``."""
        query = sa.select(_changes).order_by(_changes.c.number.desc()).limit(limit)
        if states:
            query = query.where(_changes.c.state.in_([str(each) for each in states]))
        if before is not None:
            query = query.where(_changes.c.number < before)
        with self._engine.connect() as connection:
            return [change_of(row) for row in connection.execute(query)]

    def open_changes_of(self, *, templates: Collection[str], modules: Collection[str]) -> list[Change]:
        """Return the changes that wait and are, or carry, one of these digests."""
        query = sa.select(_changes).where(
            _changes.c.state.in_([str(state) for state in OPEN])
            & (_changes.c.sha256.in_(list(templates)) | _changes.c.code_sha256.in_(list(modules)))
        )
        with self._engine.connect() as connection:
            return [change_of(row) for row in connection.execute(query)]

    def published(self) -> list[Change]:
        """Return every change that ever entered the library, oldest first."""
        query = sa.select(_changes).where(_changes.c.generation > 0).order_by(_changes.c.number)
        with self._engine.connect() as connection:
            return [change_of(row) for row in connection.execute(query)]

    def referenced_blobs(self) -> set[str]:
        """Return the digests of all code and bundles that records refer to."""
        with self._engine.connect() as connection:
            code = connection.execute(sa.select(_changes.c.code_sha256).where(_changes.c.code_sha256.is_not(None)))
            bundles = connection.execute(sa.select(_generations.c.bundle_sha256))
            return {*code.scalars(), *bundles.scalars()} - {""}

    def report(self, sha256: str) -> bytes | None:
        """Return what was found when the module with this digest was inspected."""
        with self._engine.connect() as connection:
            return connection.execute(
                sa.select(_inspections.c.report).where(_inspections.c.sha256 == sha256)
            ).scalar_one_or_none()

    # Generations

    def commit_generation(
        self,
        state: SignedState,
        *,
        steps: Iterable[Step] = (),
        states: Mapping[TemplateRef, ChangeState],
        bundles_kept: int,
        answered: Answered | None = None,
        decisions: Iterable[Decision] = (),
    ) -> None:
        """Store a signed generation and everything that it means, at once or not at all.

        A generation that is stored already (nothing but its lease was new) keeps its line in the list.

        Args:
            state: the generation, its complete metadata, belief and trust documents; they replace the stored ones.
            steps: what persons did to changes, carried out before ``states``.
            states: versions whose state is another one than before.
            bundles_kept: older generations than this many no longer refer to their bundle.
            answered: what whoever asked for it is answered.
            decisions: what the audit log says of it.

        Raises:
            TransitionRefusedError, EtagMismatchError: nothing is written.
        """
        record = state.generation
        with self.writing() as connection:
            connection.execute(
                insert(_generations)
                .values(
                    number=record.number,
                    created_at=int(record.created_at.timestamp()),
                    cause=record.cause,
                    author=record.author,
                    plan=record.plan.to_bytes(),
                    bundle_sha256=record.bundle_sha256,
                )
                .on_conflict_do_update(index_elements=["number"], set_={"bundle_sha256": record.bundle_sha256})
            )
            connection.execute(
                sa.update(_generations)
                .where(_generations.c.number <= record.number - bundles_kept)
                .values(bundle_sha256="")
            )
            _replace_files(connection, _metadata, state.metadata)
            _replace_files(connection, _trust, state.trust)
            _save_belief(connection, state.belief)
            for step in steps:
                sqlite_changes.write(connection, step)
            sqlite_changes.place(connection, states, by=record.author, cause=record.cause, at=record.created_at)
            self.record(connection, *decisions)
            sqlite_answers.remember(connection, answered)

    def save_lease(self, timestamp: bytes, belief: bytes) -> None:
        """Store a renewed ``timestamp.json`` of the newest generation."""
        with self.writing() as connection:
            _upsert(connection, _metadata, {"file": "timestamp.json", "content": timestamp})
            _save_belief(connection, belief)

    def signed_state(self) -> SignedState | None:
        """Return the newest generation; None before the first."""
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(_generations).order_by(_generations.c.number.desc()).limit(1)).first()
            if row is None:
                return None
            belief = connection.execute(sa.select(_belief)).one()
            return SignedState(
                generation=_generation(row),
                metadata=_files(connection, _metadata),
                belief=belief.content,
                trust=_files(connection, _trust),
            )

    def generation(self, number: int) -> GenerationRecord | None:
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(_generations).where(_generations.c.number == number)).first()
            return None if row is None else _generation(row)

    def generations(self, *, before: int | None = None, limit: int = 100) -> list[GenerationRecord]:
        """Return generations, newest first, with numbers below ``before``."""
        query = sa.select(_generations).order_by(_generations.c.number.desc()).limit(limit)
        if before is not None:
            query = query.where(_generations.c.number < before)
        with self._engine.connect() as connection:
            return [_generation(row) for row in connection.execute(query)]

    # Nodes

    def save_nodes(self, views: Sequence[NodeView]) -> None:
        with self.writing() as connection:
            for view in views:
                values = asdict(view)
                values["seen_at"] = int(view.seen_at.timestamp())
                _upsert(connection, _nodes, {"id": view.id, "seen_at": values["seen_at"], "view": values})

    def nodes(self) -> list[NodeView]:
        """Return what was known of each node; none of them is connected to this process yet."""
        with self._engine.connect() as connection:
            return [_node(row.view) for row in connection.execute(sa.select(_nodes).order_by(_nodes.c.id))]

    def _one_change(self, condition: sa.ColumnElement[bool]) -> Change | None:
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(_changes).where(condition)).first()
            return None if row is None else change_of(row)


def _configure(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins no transactions behind our back; `_begin` does
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={_BUSY_TIMEOUT_MS}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    # A transaction that reads before it writes must be the writer from its beginning, or another may come between.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("immediate") else "BEGIN")


def _now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 -- the default of an edge; tests pass their own


def _upsert(connection: Connection, table: sa.Table, values: dict[str, object]) -> None:
    statement = insert(table).values(values)
    connection.execute(statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=values))


def _replace_files(connection: Connection, table: sa.Table, files: Mapping[str, bytes]) -> None:
    connection.execute(sa.delete(table).where(table.c.file.not_in(list(files))))
    for file, content in files.items():
        _upsert(connection, table, {"file": file, "content": content})


def _files(connection: Connection, table: sa.Table) -> dict[str, bytes]:
    return {row.file: row.content for row in connection.execute(sa.select(table))}


def _save_belief(connection: Connection, belief: bytes) -> None:
    _upsert(connection, _belief, {"id": _BELIEF_ROW, "content": belief})


def _generation(row: Row[Any]) -> GenerationRecord:
    return GenerationRecord(
        number=row.number,
        created_at=datetime.fromtimestamp(row.created_at, UTC),
        cause=row.cause,
        author=row.author,
        plan=read_plan(row.plan),
        bundle_sha256=row.bundle_sha256,
    )


def _node(view: dict[str, Any]) -> NodeView:
    refusal = view["refusal"]
    return NodeView(
        **{
            **view,
            "seen_at": datetime.fromtimestamp(view["seen_at"], UTC),
            "connected": False,
            "in_flight": 0,
            "stage": Stage(view["stage"]) if view["stage"] else None,
            "refusal": Refusal(**refusal) if refusal else None,
        }
    )
