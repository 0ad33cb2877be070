"""Agents and their key-value state in SQLite: what was acknowledged is on disk, many creations share a commit.

Every row is sealed (`data_plane.sealed_rows`) and checked when it is read for its content. Deleting and replacing need
no sound row, so that a damaged one can be got rid of.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from data_plane.agents.agent import Agent, AgentScope, NewAgent
from data_plane.agents.refusals import AgentExistsError, AgentsExhaustedError, RequestIdReusedError
from data_plane.broker.answers import ErrorKind, HostRefusal
from data_plane.broker.kv_grant import KvDelete, KvEntry, KvList, KvPut, entry_bytes, require_expected, used_after_put
from data_plane.sealed_rows import Column, RowDamagedError, RowSeals
from data_plane.sqlite_writer import SqliteWriter
from templates.grants import KvGrant
from templates.names import TemplateName
from templates.reasons import AgentFactoryError

Place = tuple[str, str, str, str, str]

REQUESTS_KEPT: Final = timedelta(days=1)
COLLECTED_PLACES: Final = 20
COLLECTED_ENTRIES: Final = 500

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_LIMITS: Final = "{}"
_AGENT: Final = "SELECT tenant, agent_id, domain, name, config, created_us, limits, seal FROM agents"
_GET: Final = (
    "SELECT value, version, expires_us, seal FROM kv"
    " WHERE tenant = ? AND domain = ? AND name = ? AND agent_id = ? AND namespace = ? AND key = ?"
)
_DELETE: Final = (
    "DELETE FROM kv WHERE tenant = ? AND domain = ? AND name = ? AND agent_id = ? AND namespace = ? AND key = ?"
)
_USE: Final = (
    "SELECT used_bytes, version, seal FROM kv_scopes"
    " WHERE tenant = ? AND domain = ? AND name = ? AND agent_id = ? AND namespace = ?"
)
_SET_USE: Final = "INSERT OR REPLACE INTO kv_scopes VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_LIST: Final = (
    "SELECT key, value, version, expires_us, seal FROM kv"
    " WHERE tenant = ? AND domain = ? AND name = ? AND agent_id = ? AND namespace = ?"
    " AND key > ? AND key >= ? AND substr(key, 1, ?) = ? AND (expires_us IS NULL OR expires_us > ?)"
    " ORDER BY key LIMIT ?"
)
_EXPIRED: Final = (
    "SELECT key, value, version, expires_us, seal FROM kv"
    " WHERE tenant = ? AND domain = ? AND name = ? AND agent_id = ? AND namespace = ? AND expires_us <= ? LIMIT ?"
)
_EXPIRED_ANYWHERE: Final = (
    "SELECT DISTINCT tenant, domain, name, agent_id, namespace FROM kv WHERE expires_us <= ? LIMIT ?"
)


class SqliteAgents:
    """`AgentStore` and `KvStore` over one database."""

    def __init__(
        self,
        writer: SqliteWriter,
        *,
        agents_max: int,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        """``now_us`` gives microseconds since 1970, by which entries expire."""
        self._writer = writer
        self._seals = writer.seals
        self._agents_max = agents_max
        self._now_us = now_us

    async def create(self, wishes: Sequence[NewAgent]) -> Sequence[Agent | AgentFactoryError]:
        def work(connection: sqlite3.Connection) -> list[Agent | AgentFactoryError]:
            made: list[Agent | AgentFactoryError] = []
            total = _total(connection, self._seals)
            for wish in wishes:
                outcome, is_new = self._create(connection, wish, room=self._agents_max - total)
                total += is_new
                made.append(outcome)
            _set_total(connection, self._seals, total)
            if wishes:
                forget = _to_us(wishes[0].agent.created_at - REQUESTS_KEPT)
                connection.execute("DELETE FROM requests WHERE created_us < ?", (forget,))
            return made

        return await self._writer.write(work)

    async def get(self, tenant: str, agent_id: str) -> Agent | None:
        return await self._writer.read(lambda connection: _find(connection, self._seals, tenant, agent_id))

    async def list(self, tenant: str, *, template: TemplateName | None, after: str, count_max: int) -> Sequence[Agent]:
        def work(connection: sqlite3.Connection) -> list[Agent]:
            if template is None:
                rows = connection.execute(
                    f"{_AGENT} WHERE tenant = ? AND agent_id > ? ORDER BY agent_id LIMIT ?",
                    (tenant, after, count_max),
                )
            else:
                rows = connection.execute(
                    f"{_AGENT} WHERE tenant = ? AND domain = ? AND name = ? AND agent_id > ? ORDER BY agent_id LIMIT ?",
                    (tenant, template.domain, template.name, after, count_max),
                )
            return [_agent(self._seals, row) for row in rows]

        return await self._writer.read(work)

    async def delete(self, tenant: str, agent_id: str) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            if not _exists(connection, tenant, agent_id):
                return False
            connection.execute("DELETE FROM kv WHERE tenant = ? AND agent_id = ?", (tenant, agent_id))
            connection.execute("DELETE FROM kv_scopes WHERE tenant = ? AND agent_id = ?", (tenant, agent_id))
            connection.execute("DELETE FROM agents WHERE tenant = ? AND agent_id = ?", (tenant, agent_id))
            _set_total(connection, self._seals, _total(connection, self._seals) - 1)
            return True

        return await self._writer.write(work)

    async def count(self) -> int:
        return await self._writer.read(lambda connection: _total(connection, self._seals))

    async def kv_get(self, scope: AgentScope, namespace: str, key: str) -> KvEntry | None:
        place, now_us = _place(scope, namespace), self._now_us()
        return await self._writer.read(lambda connection: self._entry(connection, place, key, now_us))

    async def kv_put(self, scope: AgentScope, grant: KvGrant, request: KvPut) -> int:
        now_us = self._now_us()

        def work(connection: sqlite3.Connection) -> int:
            _require_owner(connection, scope)
            place = _place(scope, grant.namespace)
            size = entry_bytes(request.key, request.value)
            while self._collect(connection, place, now_us) == COLLECTED_ENTRIES:
                if self._use(connection, place)[0] + size <= grant.bytes_max:
                    break
            found = self._entry(connection, place, request.key, now_us, believed=request.expected is None)
            require_expected(found, request.expected)
            used_bytes, version = self._use(connection, place)
            used_bytes = used_after_put(request, found, used_bytes=used_bytes, grant=grant)
            version += 1
            self._set_use(connection, place, used_bytes, version)
            expires_us = None if request.ttl_s is None else now_us + request.ttl_s * 1_000_000
            row = (*place, request.key, request.value, version, expires_us)
            connection.execute(
                "INSERT OR REPLACE INTO kv VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, self._seals.seal("kv", row))
            )
            return version

        return await self._writer.write(work)

    async def kv_delete(self, scope: AgentScope, namespace: str, request: KvDelete) -> None:
        now_us = self._now_us()

        def work(connection: sqlite3.Connection) -> None:
            place = _place(scope, namespace)
            found = self._entry(connection, place, request.key, now_us, believed=request.expected is None)
            require_expected(found, request.expected)
            if found is not None:
                used_bytes, version = self._use(connection, place)
                used_bytes -= entry_bytes(request.key, found.value)
                self._set_use(connection, place, used_bytes, version + 1)
                connection.execute(_DELETE, (*place, request.key))

        await self._writer.write(work)

    async def kv_list(self, scope: AgentScope, namespace: str, request: KvList) -> Sequence[str]:
        now_us = self._now_us()

        def work(connection: sqlite3.Connection) -> list[str]:
            place = _place(scope, namespace)
            rows = connection.execute(
                _LIST,
                (
                    *place,
                    request.after,
                    request.prefix,
                    len(request.prefix),
                    request.prefix,
                    now_us,
                    request.count_max,
                ),
            )
            keys = []
            for *columns, seal in rows:
                self._seals.require("kv", (*place, *columns), seal, name=columns[0])
                keys.append(columns[0])
            return keys

        return await self._writer.read(work)

    async def kv_collect(self) -> bool:
        """Delete some expired entries; True when there may be more."""
        now_us = self._now_us()

        def find(connection: sqlite3.Connection) -> list[Place]:
            return connection.execute(_EXPIRED_ANYWHERE, (now_us, COLLECTED_PLACES)).fetchall()

        def work(connection: sqlite3.Connection) -> int:
            deleted = 0
            for place in places:
                with suppress(RowDamagedError):  # told to whoever uses the namespace
                    deleted += self._collect(connection, place, now_us)
            return deleted

        places = await self._writer.read(find)
        return bool(places) and await self._writer.write(work) > 0

    def _create(
        self, connection: sqlite3.Connection, wish: NewAgent, *, room: int
    ) -> tuple[Agent | AgentFactoryError, bool]:
        """Return the outcome of one wish, and whether it made an agent."""
        agent, seals = wish.agent, self._seals
        if wish.request_id:
            earlier = connection.execute(
                "SELECT sha256, agent_id, domain, name, config, created_us, limits, seal FROM requests"
                " WHERE tenant = ? AND request_id = ?",
                (agent.tenant, wish.request_id),
            ).fetchone()
            if earlier is not None:
                *columns, seal = earlier
                sealed = _sealed((agent.tenant, wish.request_id, *columns))
                seals.require("requests", sealed, seal, name=wish.request_id)
                is_same = columns[0] == wish.request_sha256
                return (
                    _as_agent(agent.tenant, *columns[1:]) if is_same else RequestIdReusedError(wish.request_id)
                ), False
        if room < 1:
            return AgentsExhaustedError(self._agents_max), False
        row = (
            agent.tenant,
            agent.agent_id,
            agent.template.domain,
            agent.template.name,
            agent.config,
            _to_us(agent.created_at),
            json.dumps(dict(agent.limits)),
        )
        made = connection.execute(
            "INSERT OR IGNORE INTO agents (tenant, agent_id, domain, name, config, created_us, limits, seal)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, seals.seal("agents", _sealed(row))),
        )
        if made.rowcount == 0:
            return AgentExistsError(agent.agent_id), False
        if wish.request_id:
            request = (agent.tenant, wish.request_id, wish.request_sha256, *row[1:])
            connection.execute(
                "INSERT INTO requests"
                " (tenant, request_id, sha256, agent_id, domain, name, config, created_us, limits, seal)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*request, seals.seal("requests", _sealed(request))),
            )
        return agent, True

    def _entry(
        self, connection: sqlite3.Connection, place: Place, key: str, now_us: int, *, believed: bool = False
    ) -> KvEntry | None:
        """Return an entry that has not expired; ``believed`` ones are only replaced or deleted, whatever they hold."""
        row = connection.execute(_GET, (*place, key)).fetchone()
        if row is None:
            return None
        *columns, seal = row
        if not believed:
            self._seals.require("kv", (*place, key, *columns), seal, name=key)
        elif not isinstance(columns[0], str):
            return KvEntry("", columns[1])
        elif not isinstance(columns[2], int | None):
            return KvEntry(columns[0], columns[1])
        if columns[2] is not None and columns[2] <= now_us:
            return None
        return KvEntry(columns[0], columns[1])

    def _collect(self, connection: sqlite3.Connection, place: Place, now_us: int) -> int:
        """Delete entries that have expired in one namespace, take them from its use, and return how many.

        A damaged row stays, and is told to whoever reads it: its moment may be what was damaged.
        """
        expired = []
        rows = connection.execute(_EXPIRED, (*place, now_us, COLLECTED_ENTRIES)).fetchall()
        for *columns, seal in rows:
            with suppress(RowDamagedError):
                self._seals.require("kv", (*place, *columns), seal, name=columns[0])
                expired.append((columns[0], columns[1]))
        if expired:
            used_bytes, version = self._use(connection, place)
            connection.executemany(_DELETE, [(*place, key) for key, _ in expired])
            used_bytes -= sum(entry_bytes(key, value) for key, value in expired)
            self._set_use(connection, place, used_bytes, version)
        return len(expired)

    def _use(self, connection: sqlite3.Connection, place: Place) -> tuple[int, int]:
        row = connection.execute(_USE, place).fetchone()
        if row is None:
            return 0, 0
        used_bytes, version, seal = row
        self._seals.require("kv_scopes", (*place, used_bytes, version), seal, name=place[-1])
        return used_bytes, version

    def _set_use(self, connection: sqlite3.Connection, place: Place, used_bytes: int, version: int) -> None:
        row = (*place, used_bytes, version)
        connection.execute(_SET_USE, (*row, self._seals.seal("kv_scopes", row)))


def _total(connection: sqlite3.Connection, seals: RowSeals) -> int:
    found: int
    found, seal = connection.execute("SELECT agents, seal FROM totals").fetchone()
    try:
        seals.require("totals", (found,), seal, name="agents")
    except RowDamagedError:  # it can be counted again
        (found,) = connection.execute("SELECT count(*) FROM agents").fetchone()
    return found


def _set_total(connection: sqlite3.Connection, seals: RowSeals, total: int) -> None:
    connection.execute("UPDATE totals SET agents = ?, seal = ?", (total, seals.seal("totals", (total,))))


def _exists(connection: sqlite3.Connection, tenant: str, agent_id: str) -> bool:
    found = connection.execute("SELECT 1 FROM agents WHERE tenant = ? AND agent_id = ?", (tenant, agent_id))
    return found.fetchone() is not None


def _find(connection: sqlite3.Connection, seals: RowSeals, tenant: str, agent_id: str) -> Agent | None:
    row = connection.execute(f"{_AGENT} WHERE tenant = ? AND agent_id = ?", (tenant, agent_id)).fetchone()
    return None if row is None else _agent(seals, row)


def _agent(seals: RowSeals, row: tuple[str, str, str, str, bytes, int, str, bytes]) -> Agent:
    seals.require("agents", _sealed(row[:7]), row[7], name=row[1])
    return _as_agent(*row[:7])


def _sealed(row: Sequence[Column]) -> Sequence[Column]:
    """Return what the seal of a row covers that ends with limits: rows from before there were any were sealed without.

    Nothing can be taken for something else: one more column is another seal.
    """
    return row[:-1] if row[-1] == _NO_LIMITS else row


def _as_agent(tenant: str, agent_id: str, domain: str, name: str, config: bytes, created_us: int, limits: str) -> Agent:
    return Agent(
        tenant=tenant,
        agent_id=agent_id,
        template=TemplateName(domain, name),
        config=config,
        created_at=_EPOCH + timedelta(microseconds=created_us),
        limits=tuple(sorted(json.loads(limits).items())),
    )


def _place(scope: AgentScope, namespace: str) -> Place:
    return scope.tenant, scope.template.domain, scope.template.name, scope.agent_id, namespace


def _require_owner(connection: sqlite3.Connection, scope: AgentScope) -> None:
    """An invocation may outlive its agent; its writes may not bring state back."""
    if scope.agent_id and not _exists(connection, scope.tenant, scope.agent_id):
        raise HostRefusal(ErrorKind.NOT_FOUND, "expected the state of an agent, which was deleted meanwhile")


def _to_us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
