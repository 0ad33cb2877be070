"""Recent invocations in a database of their own: written in batches off the invoke path, bounded in number and age.

Recording appends to a list and returns. Once the answer is on its way the record becomes the text of its row: far more
invocations wait for the disk than run, and a text is a fraction of a record. A task writes the rows a few times a
second; a query writes first what still waits, so that a caller finds its own last invocation. When too many wait the
oldest are dropped and counted.
"""

import asyncio
import hashlib
import json
import sqlite3
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _text
from typing import Any, Final

from data_plane.agents.invocations import GrantUsage, InvocationFilter, InvocationRecord, LogRecord, UsageRecord
from data_plane.sealed_rows import RowDamagedError, RowSeals
from data_plane.sqlite_writer import DatabaseFailedError, SqliteWriter
from service.logs import get_logger

QUEUE_MAX: Final = 20_000
BATCH_MAX: Final = 500
TRIM_EVERY: Final = 2_000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_TABLE: Final = '"invocations"'
_REMEMBERED_MAX: Final = 4_096
# One statement for a whole batch: sqlite3 gives up the interpreter lock at every step, so that a step for each row
# would take turns with the event loop and cost it more than the invocations themselves.
_INSERT: Final = (
    "INSERT OR REPLACE INTO invocations SELECT"
    " json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),"
    " json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]'),"
    " json_extract(value, '$[6]'), json_extract(value, '$[7]') FROM json_each(?)"
)
_COLUMNS: Final = "tenant, invocation_id, agent_id, template, started_us, facts, seal"

_encode: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode

log = get_logger("invocations")


class SqliteInvocations:
    """`InvocationLog` over one database. ``kept_max`` counts all tenants' records together."""

    def __init__(self, writer: SqliteWriter, *, kept_max: int, kept_s: float, period_s: float = 0.5) -> None:
        self._writer = writer
        self._seals = writer.seals
        self._kept_max = kept_max
        self._kept_s = kept_s
        self._period_s = period_s
        self._fresh: list[InvocationRecord] = []
        self._queue: deque[_Row] = deque()
        self._turn = asyncio.Lock()
        self._since_trim = TRIM_EVERY
        self.dropped = 0

    def record(self, record: InvocationRecord) -> None:
        if self._kept_max == 0:
            return
        self._fresh.append(record)
        if len(self._fresh) == 1:
            asyncio.get_running_loop().call_soon(self._queue_fresh)

    def _queue_fresh(self) -> None:
        """Make rows of what was recorded since the last time."""
        fresh, self._fresh = self._fresh, []
        self._queue.extend([_row(each, self._seals) for each in fresh])
        for _ in range(len(self._queue) - QUEUE_MAX):
            self._queue.popleft()
            self.dropped += 1

    async def run(self) -> None:
        """Write what is queued, for ever; a failed write is logged and its records are dropped."""
        while True:
            await asyncio.sleep(self._period_s)
            await self.flush()

    async def flush(self) -> None:
        """Write everything that was recorded before this call; what another call is writing counts."""
        async with self._turn:
            self._queue_fresh()
            await self._flush()

    async def _flush(self) -> None:
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), BATCH_MAX))]
            self._since_trim += len(batch)
            trim = self._since_trim >= TRIM_EVERY
            if trim:
                self._since_trim = 0

            def work(
                connection: sqlite3.Connection,
                rows: str = f"[{','.join([each.text for each in batch])}]",
                now_us: int | None = batch[-1].started_us if trim else None,
            ) -> None:
                connection.execute(_INSERT, (rows,))
                if now_us is not None:
                    self._trim(connection, now_us)

            try:
                await self._writer.write(work)
            except DatabaseFailedError as error:
                self.dropped += len(batch)
                log.warning("invocation_records_dropped", records=len(batch), message=error.message)

    async def list(self, wanted: InvocationFilter) -> Sequence[InvocationRecord]:
        await self.flush()
        conditions, values = ["tenant = ?"], [wanted.tenant]
        for column, value in (("agent_id", wanted.agent_id), ("template", wanted.template)):
            if value:
                conditions.append(f"{column} = ?")
                values.append(value)
        if wanted.before:
            conditions.append("invocation_id < ?")
            values.append(wanted.before)
        query = (
            f"SELECT {_COLUMNS} FROM invocations WHERE {' AND '.join(conditions)}"  # noqa: S608 — constants only
            " ORDER BY invocation_id DESC LIMIT ?"
        )

        def work(connection: sqlite3.Connection) -> list[InvocationRecord]:
            return [self._record(row) for row in connection.execute(query, (*values, wanted.count_max))]

        return await self._writer.read(work)

    async def get(self, tenant: str, invocation_id: str) -> InvocationRecord | None:
        await self.flush()

        def work(connection: sqlite3.Connection) -> InvocationRecord | None:
            row = connection.execute(
                f"SELECT {_COLUMNS}, logs FROM invocations WHERE tenant = ? AND invocation_id = ?",  # noqa: S608
                (tenant, invocation_id),
            ).fetchone()
            return None if row is None else self._record(row[:7], logs=row[7])

        return await self._writer.read(work)

    def _record(self, row: tuple[str, str, str, str, int, str, str], *, logs: str | None = None) -> InvocationRecord:
        """Return a record, with its logs if they were read: the seal covers their digest, which stands in the facts."""
        columns, seal = row[:6], row[6]
        try:
            raw = bytes.fromhex(seal)
        except (TypeError, ValueError):
            raw = b""
        self._seals.require("invocations", columns, raw, name=row[1])
        record, logs_digest = _read(columns)
        if logs is not None:
            if _digest(logs) != logs_digest:
                raise RowDamagedError("invocations", row[1])
            record.logs = tuple(LogRecord(*each) for each in json.loads(logs))
        return record

    def _trim(self, connection: sqlite3.Connection, now_us: int) -> None:
        """Rows are in the order of their writing, so that age and number need no index of their own."""
        first_young = "(SELECT rowid FROM invocations WHERE started_us >= ? ORDER BY rowid LIMIT 1)"
        young_from_us = now_us - int(self._kept_s * 1e6)
        connection.execute(f"DELETE FROM invocations WHERE rowid < {first_young}", (young_from_us,))  # noqa: S608
        connection.execute(
            "DELETE FROM invocations WHERE rowid <= (SELECT max(rowid) FROM invocations) - ?", (self._kept_max,)
        )


@dataclass(slots=True)
class _Row:
    """A row as JSON, sealed."""

    text: str
    started_us: int


def _row(record: InvocationRecord, seals: RowSeals) -> _Row:
    """Return the row of a record. It is made for every invocation, and so written by hand where that is cheaper."""
    usage = record.usage
    logs, logs_digest = _NO_LOGS, _NO_LOGS_DIGEST
    if record.logs:
        logs = _encode([(each.level, each.message, each.at_us) for each in record.logs])
        logs_digest = _digest(logs)
    common = _common_facts(
        record.caller,
        record.version,
        record.generation,
        record.template_sha256,
        record.code_sha256,
        record.image_sha256,
        record.config_sha256,
    )
    granted = "" if usage.grants is None else f",{_encode(tuple(usage.grants.amounts().values()))[1:-1]}"
    facts = (
        f"{common}{_text(record.outcome)},{_text(record.message)},{'true' if record.logs_cut else 'false'},"
        f"{_text(record.parent_invocation_id)},{usage.fuel},{usage.wall_us},{usage.guest_us},{usage.host_calls},"
        f"{usage.wasi_calls},{usage.input_bytes},{usage.output_bytes},{usage.log_bytes},{usage.child_invocations},"
        f'"{logs_digest}",{usage.sent_bytes},{usage.received_bytes},{usage.tokens},'
        f'"{record.input_hmac_sha256}","{record.output_hmac_sha256}"{granted}]'
    )
    started_us = (record.started_at - _EPOCH) // _MICROSECOND
    sealed = (
        f"{_text(record.tenant)},{_text(record.invocation_id)},{_text(record.agent_id)},{_text(record.template)},"
        f"{started_us},{_text(facts)}"
    )
    return _Row(f'[{sealed},{_text(logs)},"{seals.seal_text(f"{_TABLE},{sealed}").hex()}"]', started_us)


@lru_cache(maxsize=_REMEMBERED_MAX)
def _common_facts(*facts: str | int) -> str:
    """Return the beginning of the facts, which is the same for all invocations of one template by one caller."""
    return f"{_encode(facts)[:-1]},"


def _read(row: tuple[str, str, str, str, int, str]) -> tuple[InvocationRecord, str]:
    """Return the record without its logs, and their digest."""
    tenant, invocation_id, agent_id, template, started_us, facts_text = row
    facts: list[Any] = json.loads(facts_text)
    fuel, wall_us, guest_us, host_calls, wasi_calls, input_bytes, output_bytes, log_bytes, children, logs_digest = (
        facts[11:21]
    )
    # Rows from before these existed end there.
    sent_bytes, received_bytes, tokens, input_hmac, output_hmac = facts[21:26] or (0, 0, 0, "", "")
    by_grants = facts[26:29]
    record = InvocationRecord(
        tenant=tenant,
        invocation_id=invocation_id,
        agent_id=agent_id,
        template=template,
        started_at=_EPOCH + timedelta(microseconds=started_us),
        caller=facts[0],
        version=facts[1],
        generation=facts[2],
        template_sha256=facts[3],
        code_sha256=facts[4],
        image_sha256=facts[5],
        config_sha256=facts[6],
        outcome=facts[7],
        message=facts[8],
        logs_cut=facts[9],
        parent_invocation_id=facts[10],
        usage=UsageRecord(
            fuel=fuel,
            wall_us=wall_us,
            guest_us=guest_us,
            host_calls=host_calls,
            wasi_calls=wasi_calls,
            input_bytes=input_bytes,
            output_bytes=output_bytes,
            log_bytes=log_bytes,
            child_invocations=children,
            sent_bytes=sent_bytes,
            received_bytes=received_bytes,
            tokens=tokens,
            grants=_grant_usage(*by_grants) if by_grants else None,
        ),
        input_hmac_sha256=input_hmac,
        output_hmac_sha256=output_hmac,
    )
    return record, logs_digest


def _grant_usage(cost_microusd: int, file_read_bytes: int, file_written_bytes: int) -> GrantUsage:
    return GrantUsage(
        cost_microusd=cost_microusd, file_read_bytes=file_read_bytes, file_written_bytes=file_written_bytes
    )


def _digest(logs: str) -> str:
    return hashlib.sha256(logs.encode("utf-8", "surrogatepass")).hexdigest()[:32]


_NO_LOGS: Final = "[]"
_NO_LOGS_DIGEST: Final = _digest(_NO_LOGS)  # of most invocations
