"""What every key-value store promises: the same body against the fake and SQLite."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_plane.agents.agent import Agent, AgentScope, NewAgent
from data_plane.broker.answers import ErrorKind, HostRefusal
from data_plane.broker.kv_grant import KvDelete, KvEntry, KvList, KvPut
from data_plane.sqlite_agents import SqliteAgents
from data_plane.sqlite_writer import SqliteWriter
from templates.grants import KvGrant
from templates.names import TemplateName
from tests.unit.data_plane.memory_store import MemoryAgents

NOTES = TemplateName("docs", "notes")
GRANT = KvGrant(namespace="n", bytes_max=100)
SCOPE = AgentScope(tenant="acme", template=NOTES)
Store = MemoryAgents | SqliteAgents


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000

    def now_us(self) -> int:
        return self.now_s * 1_000_000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryAgents(now_us=clock.now_us)
    else:
        async with SqliteWriter(tmp_path / "agents.db", schema="agents", durable=True, key=bytes(32)) as writer:
            yield SqliteAgents(writer, agents_max=10, now_us=clock.now_us)


def put(key: str, value: str, expected: int | None = None, ttl_s: int | None = None) -> KvPut:
    return KvPut(key=key, value=value, expected=expected, ttl_s=ttl_s)


async def refused(awaitable: object) -> ErrorKind:
    with pytest.raises(HostRefusal) as refusal:
        await awaitable  # type: ignore[misc]
    return refusal.value.kind


async def test_what_was_put_is_read_with_its_version(store: Store) -> None:
    assert await store.kv_get(SCOPE, "n", "k") is None
    version = await store.kv_put(SCOPE, GRANT, put("k", "é\0"))
    assert await store.kv_get(SCOPE, "n", "k") == KvEntry("é\0", version)


async def test_versions_grow_and_never_come_back(store: Store) -> None:
    first = await store.kv_put(SCOPE, GRANT, put("k", "1"))
    await store.kv_delete(SCOPE, "n", KvDelete(key="k", expected=first))
    assert await store.kv_get(SCOPE, "n", "k") is None
    assert await store.kv_put(SCOPE, GRANT, put("k", "1", 0)) > first


async def test_compare_and_swap_refuses_what_it_did_not_expect(store: Store) -> None:
    version = await store.kv_put(SCOPE, GRANT, put("k", "1", 0))
    assert await refused(store.kv_put(SCOPE, GRANT, put("k", "2", 0))) is ErrorKind.CONFLICT
    assert await refused(store.kv_put(SCOPE, GRANT, put("k", "2", version + 1))) is ErrorKind.CONFLICT
    assert await refused(store.kv_put(SCOPE, GRANT, put("absent", "2", 1))) is ErrorKind.NOT_FOUND
    assert await refused(store.kv_delete(SCOPE, "n", KvDelete(key="k", expected=version + 1))) is ErrorKind.CONFLICT
    assert await store.kv_get(SCOPE, "n", "k") == KvEntry("1", version)


async def test_one_of_many_concurrent_swaps_wins(store: Store) -> None:
    version = await store.kv_put(SCOPE, GRANT, put("k", "0"))
    outcomes = await asyncio.gather(
        *(store.kv_put(SCOPE, GRANT, put("k", str(index), version)) for index in range(20)), return_exceptions=True
    )
    assert sum(isinstance(each, int) for each in outcomes) == 1


async def test_the_quota_counts_keys_and_values_and_lets_writes_that_free_through(store: Store) -> None:
    await store.kv_put(SCOPE, GRANT, put("a", "x" * 60))
    assert await refused(store.kv_put(SCOPE, GRANT, put("b", "x" * 39))) is ErrorKind.QUOTA
    await store.kv_put(SCOPE, GRANT, put("b", "x" * 38))
    small = KvGrant(namespace="n", bytes_max=10)
    await store.kv_put(SCOPE, small, put("a", "x" * 59))
    assert await refused(store.kv_put(SCOPE, small, put("a", "x" * 60))) is ErrorKind.QUOTA
    await store.kv_delete(SCOPE, "n", KvDelete(key="a", expected=None))
    await store.kv_put(SCOPE, GRANT, put("c", "x" * 59))


@pytest.mark.parametrize(
    "other",
    [
        AgentScope(tenant="rival", template=NOTES),
        AgentScope(tenant="acme", template=TemplateName("docs", "other")),
        AgentScope(tenant="acme", template=TemplateName("other", "notes")),
    ],
)
async def test_scopes_do_not_see_each_other(store: Store, other: AgentScope) -> None:
    await store.kv_put(SCOPE, GRANT, put("k", "mine"))
    assert await store.kv_get(other, "n", "k") is None
    assert await store.kv_list(other, "n", KvList(prefix="", after="", count_max=9)) == []
    assert await store.kv_get(SCOPE, "other", "k") is None


async def test_keys_are_listed_in_order_by_prefix_and_page(store: Store) -> None:
    for key in ("b", "a/2", "a/1", "a%", "é", "a/10"):
        await store.kv_put(SCOPE, GRANT, put(key, ""))
    assert await store.kv_list(SCOPE, "n", KvList(prefix="", after="", count_max=9)) == [
        "a%", "a/1", "a/10", "a/2", "b", "é",
    ]  # fmt: skip
    assert await store.kv_list(SCOPE, "n", KvList(prefix="a/", after="", count_max=2)) == ["a/1", "a/10"]
    assert await store.kv_list(SCOPE, "n", KvList(prefix="a/", after="a/10", count_max=2)) == ["a/2"]


async def test_an_agents_state_goes_with_it_and_does_not_come_back(store: Store) -> None:
    agent = Agent(
        tenant="acme", agent_id="one", template=NOTES, config=b"{}", created_at=datetime(2026, 1, 1, tzinfo=UTC)
    )
    scope = AgentScope(tenant="acme", template=NOTES, agent_id="one")
    assert await refused(store.kv_put(scope, GRANT, put("k", "early"))) is ErrorKind.NOT_FOUND
    await store.create([NewAgent(agent=agent, request_id="", request_sha256="")])
    await store.kv_put(scope, GRANT, put("k", "v"))
    await store.kv_put(SCOPE, GRANT, put("k", "shared"))
    await store.delete("acme", "one")
    assert await refused(store.kv_put(scope, GRANT, put("k", "late"))) is ErrorKind.NOT_FOUND
    await store.create([NewAgent(agent=agent, request_id="", request_sha256="")])
    assert await store.kv_get(scope, "n", "k") is None
    assert await store.kv_get(SCOPE, "n", "k") is not None


async def test_an_entry_is_gone_when_its_time_is_over_and_not_before(store: Store, clock: Clock) -> None:
    first = await store.kv_put(SCOPE, GRANT, put("k", "v", ttl_s=10))
    await store.kv_put(SCOPE, GRANT, put("stays", "v"))
    clock.now_s += 9
    assert await store.kv_get(SCOPE, "n", "k") == KvEntry("v", first)
    assert await refused(store.kv_put(SCOPE, GRANT, put("k", "w", 0))) is ErrorKind.CONFLICT
    clock.now_s += 1
    assert await store.kv_get(SCOPE, "n", "k") is None
    assert await store.kv_list(SCOPE, "n", KvList(prefix="", after="", count_max=9)) == ["stays"]
    assert await refused(store.kv_put(SCOPE, GRANT, put("k", "w", first))) is ErrorKind.NOT_FOUND
    assert await refused(store.kv_delete(SCOPE, "n", KvDelete(key="k", expected=first))) is ErrorKind.NOT_FOUND
    assert await store.kv_put(SCOPE, GRANT, put("k", "w", 0)) > first


async def test_each_write_says_anew_how_long_an_entry_stays(store: Store, clock: Clock) -> None:
    await store.kv_put(SCOPE, GRANT, put("k", "v", ttl_s=10))
    await store.kv_put(SCOPE, GRANT, put("k", "v"))
    await store.kv_put(SCOPE, GRANT, put("l", "v", ttl_s=10))
    clock.now_s += 9
    await store.kv_put(SCOPE, GRANT, put("l", "v", ttl_s=10))
    clock.now_s += 9
    assert await store.kv_get(SCOPE, "n", "k") is not None
    assert await store.kv_get(SCOPE, "n", "l") is not None


@pytest.mark.parametrize("collects", [False, True])
async def test_what_has_expired_does_not_count_against_the_quota(store: Store, clock: Clock, *, collects: bool) -> None:
    await store.kv_put(SCOPE, GRANT, put("a", "x" * 79, ttl_s=5))
    assert await refused(store.kv_put(SCOPE, GRANT, put("b", "x" * 79))) is ErrorKind.QUOTA
    clock.now_s += 5
    if collects:
        while await store.kv_collect():
            pass
    await store.kv_put(SCOPE, GRANT, put("b", "x" * 99))
    assert await refused(store.kv_put(SCOPE, GRANT, put("c", ""))) is ErrorKind.QUOTA


async def test_thousands_that_expire_at_once_make_room_for_one_that_needs_it_all(store: Store, clock: Clock) -> None:
    grant = KvGrant(namespace="n", bytes_max=4 * 1_200)
    await asyncio.gather(*(store.kv_put(SCOPE, grant, put(f"{index:04}", "", ttl_s=5)) for index in range(1_200)))
    assert await refused(store.kv_put(SCOPE, grant, put("k", ""))) is ErrorKind.QUOTA
    clock.now_s += 5
    await store.kv_put(SCOPE, grant, put("k", "x" * (4 * 1_200 - 1)))


async def test_the_collector_frees_the_disk_and_touches_nothing_else(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "agents.db"
    other = AgentScope(tenant="rival", template=NOTES)
    async with SqliteWriter(path, schema="agents", durable=True, key=bytes(32)) as writer:
        store = SqliteAgents(writer, agents_max=10, now_us=clock.now_us)
        for index in range(30):
            scope = AgentScope(tenant=f"tenant-{index}", template=NOTES)
            await store.kv_put(scope, GRANT, put("k", "v", ttl_s=1))
        await store.kv_put(other, GRANT, put("k", "v", ttl_s=100))
        await store.kv_put(SCOPE, GRANT, put("k", "v"))
        clock.now_s += 1
        rounds = 1
        while await store.kv_collect():
            rounds += 1
        assert rounds > 1
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM kv").fetchone() == (2,)
        assert connection.execute("SELECT sum(used_bytes) FROM kv_scopes").fetchone() == (4,)


async def test_an_expiry_survives_a_restart(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "agents.db"
    async with SqliteWriter(path, schema="agents", durable=True, key=bytes(32)) as writer:
        await SqliteAgents(writer, agents_max=10, now_us=clock.now_us).kv_put(SCOPE, GRANT, put("k", "v", ttl_s=10))
    async with SqliteWriter(path, schema="agents", durable=True, key=bytes(32)) as writer:
        store = SqliteAgents(writer, agents_max=10, now_us=clock.now_us)
        assert await store.kv_get(SCOPE, "n", "k") is not None
        clock.now_s += 10
        assert await store.kv_get(SCOPE, "n", "k") is None


KEYS = st.sampled_from(["a", "ab", "é"])
STEPS = st.lists(
    st.one_of(
        st.builds(put, KEYS, st.text(max_size=40), st.none() | st.integers(0, 8), st.none() | st.integers(1, 3)),
        st.integers(1, 3),
        st.builds(KvDelete, key=KEYS, expected=st.none() | st.integers(0, 8)),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_sqlite_and_the_fake_answer_alike(tmp_path_factory: pytest.TempPathFactory, steps: list[object]) -> None:
    clock = Clock()
    fake = MemoryAgents(now_us=clock.now_us)
    path = tmp_path_factory.mktemp("kv") / "agents.db"
    async with SqliteWriter(path, schema="agents", durable=False, key=bytes(32)) as writer:
        real = SqliteAgents(writer, agents_max=10, now_us=clock.now_us)
        for step in steps:
            answers = []
            if isinstance(step, int):
                clock.now_s += step
                continue
            for store in (fake, real):
                try:
                    if isinstance(step, KvPut):
                        answers.append(str(await store.kv_put(SCOPE, GRANT, step)))
                    elif isinstance(step, KvDelete):
                        await store.kv_delete(SCOPE, "n", step)
                        answers.append("deleted")
                except HostRefusal as refusal:
                    answers.append(str(refusal.kind))
            assert answers[0] == answers[1]
        for key in ("a", "ab", "é"):
            assert await fake.kv_get(SCOPE, "n", key) == await real.kv_get(SCOPE, "n", key)
