"""One SQLite database, one thread that writes, group commit: many waiting writes share one fsync.

SQLite in WAL mode syncs once per commit (about 3 ms here), so the writer takes everything that waits into one
transaction, each piece of work in a savepoint of its own, and answers all of them after the commit. Reads run on a
thread and a connection of their own and never wait for a writer.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from data_plane.sealed_files import StoreDamagedError
from data_plane.sealed_rows import RowSeals
from data_plane.sqlite_migrations import migrate
from templates.reasons import AgentFactoryError, Reason

Result = TypeVar("Result")

BATCH_MAX: Final = 512
_BUSY_MS: Final = 5_000


class DatabaseFailedError(AgentFactoryError):
    """The database could not be written: a full or broken disk. Nothing of the batch was kept."""

    reason = Reason.STORE_FAILED


@dataclass(slots=True)
class _Job:
    work: Callable[[sqlite3.Connection], Any]
    future: "asyncio.Future[Any]"


class SqliteWriter:
    """``async with SqliteWriter(...)``: entering brings the schema up to date, leaving writes what still waits."""

    def __init__(self, path: Path, *, schema: str, durable: bool, key: bytes) -> None:
        """``schema`` names the migrations. Without ``durable`` a power cut (not a crash) may lose the last commits.

        ``key`` is the node's own, for the seals of rows.
        """
        self.seals = RowSeals(key)
        self._path = path
        self._schema = schema
        self._durable = durable
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._reading: sqlite3.Connection | None = None

    async def __aenter__(self) -> Self:
        """Bring the schema up to date and open the database.

        Raises:
            StoreDamagedError: the file is no database, or its structure is broken.
            DatabaseFailedError: it cannot be written.
        """
        await asyncio.to_thread(self._require_sound)
        self._loop = asyncio.get_running_loop()
        connection = self._connect()
        self._thread = threading.Thread(target=self._write, args=(connection,), name=f"sqlite-{self._schema}")
        self._thread.start()
        self._reading = self._connect(reading=True)
        self._readers = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"sqlite-read-{self._schema}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread is not None and self._readers is not None and self._reading is not None:
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)
            self._readers.shutdown(wait=True)
            self._reading.close()

    async def write(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run ``work`` in the next transaction and return its result once that is committed.

        What ``work`` raises undoes its own changes only. Cancelling the waiting task does not undo the work.

        Raises:
            DatabaseFailedError: the transaction could not be committed.
        """
        future: asyncio.Future[Result] = self._loop.create_future()
        self._jobs.put(_Job(work, future))
        return await future

    async def read(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run ``work`` on the reading connection: it sees everything that was committed before."""
        if self._readers is None or self._reading is None:
            raise DatabaseFailedError("expected an open database")
        return await self._loop.run_in_executor(self._readers, work, self._reading)

    def _require_sound(self) -> None:
        try:
            migrate(self._path, self._schema, seals=self.seals)
            with closing(self._connect()) as connection:
                (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("PRAGMA user_version = 0")  # nobody reads it: it shows whether writing is possible
                connection.execute("ROLLBACK")
        except sqlite3.OperationalError as error:
            raise DatabaseFailedError(f"expected to write {self._path.name}, got: {error}") from error
        except sqlite3.DatabaseError as error:
            found, mode = str(error), "wal"
        if found != "ok" or mode != "wal":
            found = found if mode == "wal" else f"journal mode {mode}"
            raise StoreDamagedError(self._path, f"a sound database, got: {found}; restore it, or move it away")

    def _connect(self, *, reading: bool = False) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, cached_statements=64)
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
        if reading:
            connection.execute("PRAGMA query_only = ON")
        return connection

    def _write(self, connection: sqlite3.Connection) -> None:
        running = True
        while running:
            batch = [self._jobs.get()]
            while len(batch) < BATCH_MAX and not self._jobs.empty():
                batch.append(self._jobs.get_nowait())
            jobs = [job for job in batch if job is not None]
            running = len(jobs) == len(batch)
            if jobs:
                outcomes = _commit(connection, jobs)
                self._loop.call_soon_threadsafe(_answer, jobs, outcomes)
        connection.close()


def _commit(connection: sqlite3.Connection, jobs: list[_Job]) -> list[tuple[Any, BaseException | None]]:
    outcomes: list[tuple[Any, BaseException | None]] = []
    try:
        connection.execute("BEGIN IMMEDIATE")
        for job in jobs:
            connection.execute("SAVEPOINT job")
            try:
                outcomes.append((job.work(connection), None))
            except Exception as error:  # handed to whoever awaits this job
                if not connection.in_transaction:
                    raise  # a full disk undoes the whole transaction
                connection.execute("ROLLBACK TO job")
                outcomes.append((None, error))
            connection.execute("RELEASE job")
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        failed = DatabaseFailedError(f"expected to write the database, got {error}")
        return [(None, failed)] * len(jobs)
    return outcomes


def _answer(jobs: list[_Job], outcomes: list[tuple[Any, BaseException | None]]) -> None:
    for job, (result, error) in zip(jobs, outcomes, strict=True):
        if job.future.done():
            continue
        if error is None:
            job.future.set_result(result)
        else:
            job.future.set_exception(error)
