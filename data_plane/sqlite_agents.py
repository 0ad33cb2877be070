"""Agents and their key-value state in SQLite: what was acknowledged is on disk, many creations share a commit."""

import sqlite3
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from data_plane.agents.agent import Agent, AgentScope, NewAgent
from data_plane.agents.refusals import AgentExistsError, AgentsExhaustedError, RequestIdReusedError
from data_plane.broker.answers import ErrorKind, HostRefusal
from data_plane.broker.kv_grant import KvDelete, KvEntry, KvList, KvPut, entry_bytes, require_expected, used_after_put
from data_plane.sqlite_writer import SqliteWriter
from templates.grants import KvGrant
from templates.names import TemplateName
from templates.reasons import AgentFactoryError

REQUESTS_KEPT: Final = timedelta(days=1)
COLLECTED_PLACES: Final = 20
COLLECTED_ENTRIES: Final = 500

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_GET: Final = (
    "SELECT value, version, expires_us FROM kv"
    " WHERE tenant = ? AND domain = ? AND name = ? AND agent_id = ? AND namespace = ? AND key = ?"
)
_DELETE: Final = (
    "DELETE FROM kv WHERE tenant = ? AND domain = ? AND name = ? AND agent_id = ? AND namespace = ? AND key = ?"
)
_USE: Final = (
    "SELECT used_bytes, version FROM kv_scopes"
    " WHERE tenant = ? AND domain = ? AND name = ? AND agent_id = ? AND namespace = ?"
)
_SET_USE: Final = "INSERT OR REPLACE INTO kv_scopes VALUES (?, ?, ?, ?, ?, ?, ?)"
_LIST: Final = (
    "SELECT key FROM kv"
    " WHERE tenant = ? AND domain = ? AND name = ? AND agent_id = ? AND namespace = ?"
    " AND key > ? AND key >= ? AND substr(key, 1, ?) = ? AND (expires_us IS NULL OR expires_us > ?)"
    " ORDER BY key LIMIT ?"
)
_EXPIRED: Final = (
    "SELECT key, value FROM kv WHERE tenant = ? AND domain = ? AND name = ? AND agent_id = ? AND namespace = ?"
    " AND expires_us <= ? LIMIT ?"
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
        self._agents_max = agents_max
        self._now_us = now_us

    async def create(self, wishes: Sequence[NewAgent]) -> Sequence[Agent | AgentFactoryError]:
        def work(connection: sqlite3.Connection) -> list[Agent | AgentFactoryError]:
            made: list[Agent | AgentFactoryError] = []
            total = _total(connection)
            for wish in wishes:
                outcome, is_new = _create(connection, wish, room=self._agents_max - total, agents_max=self._agents_max)
                total += is_new
                made.append(outcome)
            connection.execute("UPDATE totals SET agents = ?", (total,))
            if wishes:
                forget = _to_us(wishes[0].agent.created_at - REQUESTS_KEPT)
                connection.execute("DELETE FROM requests WHERE created_us < ?", (forget,))
            return made

        return await self._writer.write(work)

    async def get(self, tenant: str, agent_id: str) -> Agent | None:
        return await self._writer.read(lambda connection: _find(connection, tenant, agent_id))

    async def list(self, tenant: str, *, template: TemplateName | None, after: str, count_max: int) -> Sequence[Agent]:
        def work(connection: sqlite3.Connection) -> list[Agent]:
            if template is None:
                rows = connection.execute(
                    "SELECT tenant, agent_id, domain, name, config, created_us FROM agents"
                    " WHERE tenant = ? AND agent_id > ? ORDER BY agent_id LIMIT ?",
                    (tenant, after, count_max),
                )
            else:
                rows = connection.execute(
                    "SELECT tenant, agent_id, domain, name, config, created_us FROM agents"
                    " WHERE tenant = ? AND domain = ? AND name = ? AND agent_id > ? ORDER BY agent_id LIMIT ?",
                    (tenant, template.domain, template.name, after, count_max),
                )
            return [_agent(row) for row in rows]

        return await self._writer.read(work)

    async def delete(self, tenant: str, agent_id: str) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            if _find(connection, tenant, agent_id) is None:
                return False
            connection.execute("DELETE FROM kv WHERE tenant = ? AND agent_id = ?", (tenant, agent_id))
            connection.execute("DELETE FROM kv_scopes WHERE tenant = ? AND agent_id = ?", (tenant, agent_id))
            connection.execute("DELETE FROM agents WHERE tenant = ? AND agent_id = ?", (tenant, agent_id))
            connection.execute("UPDATE totals SET agents = agents - 1")
            return True

        return await self._writer.write(work)

    async def count(self) -> int:
        return await self._writer.read(_total)

    async def kv_get(self, scope: AgentScope, namespace: str, key: str) -> KvEntry | None:
        now_us = self._now_us()
        return await self._writer.read(lambda connection: _entry(connection, scope, namespace, key, now_us))

    async def kv_put(self, scope: AgentScope, grant: KvGrant, request: KvPut) -> int:
        now_us = self._now_us()

        def work(connection: sqlite3.Connection) -> int:
            _require_owner(connection, scope)
            place = _place(scope, grant.namespace)
            more = _collect(connection, place, now_us)
            while more and _use(connection, place)[0] + entry_bytes(request.key, request.value) > grant.bytes_max:
                more = _collect(connection, place, now_us)
            found = _entry(connection, scope, grant.namespace, request.key, now_us)
            require_expected(found, request.expected)
            used_bytes, version = _use(connection, place)
            used_bytes = used_after_put(request, found, used_bytes=used_bytes, grant=grant)
            version += 1
            connection.execute(_SET_USE, (*place, used_bytes, version))
            expires_us = None if request.ttl_s is None else now_us + request.ttl_s * 1_000_000
            connection.execute(
                "INSERT OR REPLACE INTO kv VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*place, request.key, request.value, version, expires_us),
            )
            return version

        return await self._writer.write(work)

    async def kv_delete(self, scope: AgentScope, namespace: str, request: KvDelete) -> None:
        now_us = self._now_us()

        def work(connection: sqlite3.Connection) -> None:
            place = _place(scope, namespace)
            found = _entry(connection, scope, namespace, request.key, now_us)
            require_expected(found, request.expected)
            if found is not None:
                used_bytes, version = _use(connection, place)
                used_bytes -= entry_bytes(request.key, found.value)
                connection.execute(_SET_USE, (*place, used_bytes, version + 1))
                connection.execute(_DELETE, (*place, request.key))

        await self._writer.write(work)

    async def kv_list(self, scope: AgentScope, namespace: str, request: KvList) -> Sequence[str]:
        now_us = self._now_us()

        def work(connection: sqlite3.Connection) -> list[str]:
            rows = connection.execute(
                _LIST,
                (
                    *_place(scope, namespace),
                    request.after,
                    request.prefix,
                    len(request.prefix),
                    request.prefix,
                    now_us,
                    request.count_max,
                ),
            )
            return [row[0] for row in rows]

        return await self._writer.read(work)

    async def kv_collect(self) -> bool:
        """Delete some expired entries; True when there may be more."""
        now_us = self._now_us()

        def find(connection: sqlite3.Connection) -> list[tuple[str, str, str, str, str]]:
            return connection.execute(_EXPIRED_ANYWHERE, (now_us, COLLECTED_PLACES)).fetchall()

        def work(connection: sqlite3.Connection) -> bool:
            return any([_collect(connection, place, now_us) for place in places])

        places = await self._writer.read(find)
        has_more = bool(places) and await self._writer.write(work)
        return has_more or len(places) == COLLECTED_PLACES


def _create(
    connection: sqlite3.Connection, wish: NewAgent, *, room: int, agents_max: int
) -> tuple[Agent | AgentFactoryError, bool]:
    """Return the outcome of one wish, and whether it made an agent."""
    agent = wish.agent
    if wish.request_id:
        earlier = connection.execute(
            "SELECT tenant, agent_id, domain, name, config, created_us, sha256 FROM requests"
            " WHERE tenant = ? AND request_id = ?",
            (agent.tenant, wish.request_id),
        ).fetchone()
        if earlier is not None:
            is_same = earlier[6] == wish.request_sha256
            return (_agent(earlier[:6]) if is_same else RequestIdReusedError(wish.request_id)), False
    if room < 1:
        return AgentsExhaustedError(agents_max), False
    row = (
        agent.tenant,
        agent.agent_id,
        agent.template.domain,
        agent.template.name,
        agent.config,
        _to_us(agent.created_at),
    )
    made = connection.execute("INSERT OR IGNORE INTO agents VALUES (?, ?, ?, ?, ?, ?)", row)
    if made.rowcount == 0:
        return AgentExistsError(agent.agent_id), False
    if wish.request_id:
        connection.execute(
            "INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (agent.tenant, wish.request_id, wish.request_sha256, *row[1:]),
        )
    return agent, True


def _total(connection: sqlite3.Connection) -> int:
    found: int = connection.execute("SELECT agents FROM totals").fetchone()[0]
    return found


def _find(connection: sqlite3.Connection, tenant: str, agent_id: str) -> Agent | None:
    row = connection.execute(
        "SELECT tenant, agent_id, domain, name, config, created_us FROM agents WHERE tenant = ? AND agent_id = ?",
        (tenant, agent_id),
    ).fetchone()
    return None if row is None else _agent(row)


def _agent(row: tuple[str, str, str, str, bytes, int]) -> Agent:
    tenant, agent_id, domain, name, config, created_us = row
    return Agent(
        tenant=tenant,
        agent_id=agent_id,
        template=TemplateName(domain, name),
        config=config,
        created_at=_EPOCH + timedelta(microseconds=created_us),
    )


def _place(scope: AgentScope, namespace: str) -> tuple[str, str, str, str, str]:
    return scope.tenant, scope.template.domain, scope.template.name, scope.agent_id, namespace


def _entry(connection: sqlite3.Connection, scope: AgentScope, namespace: str, key: str, now_us: int) -> KvEntry | None:
    row = connection.execute(_GET, (*_place(scope, namespace), key)).fetchone()
    return None if row is None or (row[2] is not None and row[2] <= now_us) else KvEntry(row[0], row[1])


def _collect(connection: sqlite3.Connection, place: tuple[str, str, str, str, str], now_us: int) -> bool:
    """Delete what has expired in one namespace, and take it from the namespace's use; True when there may be more."""
    expired = connection.execute(_EXPIRED, (*place, now_us, COLLECTED_ENTRIES)).fetchall()
    if expired:
        connection.executemany(_DELETE, [(*place, key) for key, _ in expired])
        used_bytes, version = _use(connection, place)
        used_bytes -= sum(entry_bytes(key, value) for key, value in expired)
        connection.execute(_SET_USE, (*place, used_bytes, version))
    return len(expired) == COLLECTED_ENTRIES


def _use(connection: sqlite3.Connection, place: tuple[str, str, str, str, str]) -> tuple[int, int]:
    row = connection.execute(_USE, place).fetchone()
    return (0, 0) if row is None else (row[0], row[1])


def _require_owner(connection: sqlite3.Connection, scope: AgentScope) -> None:
    """An invocation may outlive its agent; its writes may not bring state back."""
    if scope.agent_id and _find(connection, scope.tenant, scope.agent_id) is None:
        raise HostRefusal(ErrorKind.NOT_FOUND, "expected the state of an agent, which was deleted meanwhile")


def _to_us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
