"""A flipped byte inside a value of a node's databases is noticed when it is read, and can be got rid of."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from data_plane.agents.agent import Agent, AgentScope, NewAgent
from data_plane.agents.invocations import InvocationFilter, InvocationRecord, LogRecord
from data_plane.broker.kv_grant import KvDelete, KvList, KvPut
from data_plane.sealed_rows import RowDamagedError, RowSeals
from data_plane.sqlite_agents import SqliteAgents
from data_plane.sqlite_invocations import SqliteInvocations
from data_plane.sqlite_migrations import NEWEST
from data_plane.sqlite_writer import SqliteWriter
from templates.grants import KvGrant
from templates.names import TemplateName
from templates.reasons import Reason

KEY = b"k" * 32
NOTES = TemplateName("docs", "notes")
SCOPE = AgentScope(tenant="acme", template=NOTES, agent_id="")
GRANT = KvGrant(namespace="n", bytes_max=1_000)
NOW = datetime(2026, 1, 2, tzinfo=UTC)
AGENT = Agent(tenant="acme", agent_id="one", template=NOTES, config=b'{"a":1}', created_at=NOW)
RECORD = InvocationRecord(
    invocation_id="i1", tenant="acme", caller="spiffe://x", agent_id="", template="docs/notes", version="1.0.0",
    generation=3, template_sha256="a", code_sha256="b", image_sha256="", config_sha256="c", started_at=NOW,
    outcome="OK", logs=(LogRecord("info", "said", 7),),
)  # fmt: skip


FACTS = '["spiffe://x","1.0.0",3,"a","b","","c","OK","",false,"",0,0,0,0,0,0,0,0,0]'
LOGS = '[["info","said",7]]'


def agents_writer(directory: Path, key: bytes = KEY) -> SqliteWriter:
    return SqliteWriter(directory / "agents.db", schema="agents", durable=False, key=key)


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(statement).rowcount == 1
        connection.commit()


async def filled(directory: Path) -> Path:
    async with agents_writer(directory) as writer:
        store = SqliteAgents(writer, agents_max=10)
        await store.create([NewAgent(agent=AGENT, request_id="r", request_sha256="s")])
        await store.kv_put(SCOPE, GRANT, KvPut(key="k", value="v", expected=None))
        await store.kv_put(SCOPE, GRANT, KvPut(key="other", value="w", expected=None))
    return directory / "agents.db"


@pytest.mark.parametrize(
    "changed",
    ["config = x'7b2261223a327d'", "created_us = created_us + 1", "domain = 'dogs'", "seal = x'00'", "seal = NULL"],
)
async def test_a_changed_agent_is_refused_and_can_be_deleted(tmp_path: Path, changed: str) -> None:
    change(await filled(tmp_path), f"UPDATE agents SET {changed}")
    async with agents_writer(tmp_path) as writer:
        store = SqliteAgents(writer, agents_max=10)
        with pytest.raises(RowDamagedError, match=r"agents: expected the row that was written.*one") as damaged:
            await store.get("acme", "one")
        assert damaged.value.reason is Reason.STORE_DAMAGED
        with pytest.raises(RowDamagedError):
            await store.list("acme", template=None, after="", count_max=10)
        assert await store.delete("acme", "one")
        assert await store.get("acme", "one") is None
        assert await store.count() == 0


@pytest.mark.parametrize(
    "changed", ["value = 'V'", "value = x'76'", "version = 9", "expires_us = 1", "tenant = 'bank'", "seal = x'00'"]
)
async def test_a_changed_entry_is_refused_and_can_be_replaced(tmp_path: Path, changed: str) -> None:
    change(await filled(tmp_path), f"UPDATE kv SET {changed} WHERE key = 'k'")
    tenant = "bank" if "bank" in changed else "acme"
    scope = AgentScope(tenant=tenant, template=NOTES, agent_id="")
    async with agents_writer(tmp_path) as writer:
        store = SqliteAgents(writer, agents_max=10)
        with pytest.raises(RowDamagedError, match="kv: "):
            await store.kv_get(scope, "n", "k")
        if "expires_us" not in changed:  # what has expired by what it says is in no list, whatever it says besides
            with pytest.raises(RowDamagedError):
                await store.kv_list(scope, "n", KvList(prefix="", after="", count_max=10))
        with pytest.raises(RowDamagedError):
            await store.kv_put(scope, GRANT, KvPut(key="k", value="x", expected=1))
        other = await store.kv_get(SCOPE, "n", "other")
        assert other is not None
        await store.kv_put(scope, GRANT, KvPut(key="k", value="new", expected=None))
        mended = await store.kv_get(scope, "n", "k")
        assert mended is not None
        assert mended.value == "new"
        await store.kv_delete(scope, "n", KvDelete(key="k", expected=None))


async def test_two_entries_cannot_change_places(tmp_path: Path) -> None:
    path = await filled(tmp_path)
    change(path, "UPDATE kv SET key = 'x' WHERE key = 'k'")
    change(path, "UPDATE kv SET key = 'k' WHERE key = 'other'")
    async with agents_writer(tmp_path) as writer:
        with pytest.raises(RowDamagedError):
            await SqliteAgents(writer, agents_max=10).kv_get(SCOPE, "n", "k")


async def test_a_changed_quota_and_a_changed_request_are_refused_and_a_changed_total_is_counted_again(
    tmp_path: Path,
) -> None:
    path = await filled(tmp_path)
    change(path, "UPDATE kv_scopes SET used_bytes = 0")
    change(path, "UPDATE requests SET agent_id = 'two'")
    change(path, "UPDATE totals SET agents = 10")
    async with agents_writer(tmp_path) as writer:
        store = SqliteAgents(writer, agents_max=10)
        with pytest.raises(RowDamagedError, match="kv_scopes"):
            await store.kv_put(SCOPE, GRANT, KvPut(key="k", value="x", expected=None))
        with pytest.raises(RowDamagedError, match="requests"):
            await store.create([NewAgent(agent=AGENT, request_id="r", request_sha256="s")])
        assert await store.count() == 1


async def test_rows_of_another_node_are_refused(tmp_path: Path) -> None:
    await filled(tmp_path)
    async with agents_writer(tmp_path, key=b"x" * 32) as writer:
        with pytest.raises(RowDamagedError):
            await SqliteAgents(writer, agents_max=10).get("acme", "one")


@pytest.mark.parametrize("changed", ["facts = replace(facts, 'OK', 'KO')", "started_us = 0", "seal = 'zz'"])
async def test_a_changed_record_of_an_invocation_is_refused(tmp_path: Path, changed: str) -> None:
    log = await recorded(tmp_path, f"UPDATE invocations SET {changed}")
    async with log as writer:
        invocations = SqliteInvocations(writer, kept_max=10, kept_s=1e9)
        with pytest.raises(RowDamagedError, match="i1"):
            await invocations.get("acme", "i1")
        with pytest.raises(RowDamagedError):
            await invocations.list(InvocationFilter(tenant="acme"))


async def test_changed_logs_are_refused_where_they_are_shown(tmp_path: Path) -> None:
    async with await recorded(tmp_path, "UPDATE invocations SET logs = replace(logs, 'said', 'sang')") as writer:
        invocations = SqliteInvocations(writer, kept_max=10, kept_s=1e9)
        with pytest.raises(RowDamagedError, match="i1"):
            await invocations.get("acme", "i1")
        (listed,) = await invocations.list(InvocationFilter(tenant="acme"))
        assert (listed.invocation_id, listed.logs) == ("i1", ())


async def recorded(directory: Path, statement: str) -> SqliteWriter:
    path = directory / "invocations.db"
    async with SqliteWriter(path, schema="invocations", durable=False, key=KEY) as writer:
        log = SqliteInvocations(writer, kept_max=10, kept_s=1e9)
        log.record(RECORD)
        await log.flush()
        assert await log.get("acme", "i1") == RECORD
    change(path, statement)
    return SqliteWriter(path, schema="invocations", durable=False, key=KEY)


async def test_rows_from_before_the_seals_are_sealed_once_and_kept(tmp_path: Path) -> None:
    us = int(NOW.timestamp() * 1e6)
    for schema, rows in {
        "agents": (
            f"INSERT INTO agents VALUES ('acme', 'one', 'docs', 'notes', x'7b2261223a317d', {us})",
            "INSERT INTO kv VALUES ('acme', 'docs', 'notes', '', 'n', 'k', 'v', 1, NULL)",
            "INSERT INTO kv_scopes VALUES ('acme', 'docs', 'notes', '', 'n', 2, 1)",
            "UPDATE totals SET agents = 1",
        ),
        "invocations": (f"INSERT INTO invocations VALUES ('acme', 'i1', '', 'docs/notes', {us}, '{FACTS}', '{LOGS}')",),
    }.items():
        path = tmp_path / f"{schema}.db"
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parents[2] / "data_plane" / "migrations" / schema))
        engine = create_engine(f"sqlite:///{path}")
        with engine.connect() as connection:
            config.attributes |= {"connection": connection, "seals": RowSeals(KEY)}
            command.upgrade(config, "0001")
            for row in rows:
                connection.exec_driver_sql(row)
            connection.commit()
        engine.dispose()
    async with agents_writer(tmp_path) as writer:
        store = SqliteAgents(writer, agents_max=10)
        assert await store.get("acme", "one") == AGENT
        entry = await store.kv_get(SCOPE, "n", "k")
        assert entry is not None
        assert (entry.value, entry.version) == ("v", 1)
        assert await store.kv_put(SCOPE, GRANT, KvPut(key="k", value="x", expected=1)) == 2
        assert await store.count() == 1
    async with SqliteWriter(tmp_path / "invocations.db", schema="invocations", durable=False, key=KEY) as writer:
        assert await SqliteInvocations(writer, kept_max=10, kept_s=1e9).get("acme", "i1") == RECORD
    assert set(NEWEST.values()) >= {"0002"}
