"""What every agent store and every invocation log promises: the same body against the fake and SQLite."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from data_plane.agents.agent import Agent, NewAgent, request_digest
from data_plane.agents.invocations import GrantUsage, InvocationFilter, InvocationRecord, LogRecord, UsageRecord
from data_plane.agents.ports import AgentStore, InvocationLog
from data_plane.agents.refusals import AgentExistsError, AgentsExhaustedError, RequestIdReusedError
from data_plane.sqlite_agents import SqliteAgents
from data_plane.sqlite_invocations import SqliteInvocations
from data_plane.sqlite_migrations import NEWEST
from data_plane.sqlite_writer import DatabaseFailedError, SqliteWriter
from templates.names import TemplateName
from tests.unit.data_plane.memory_store import MemoryAgents, MemoryInvocations

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
NOTES = TemplateName("docs", "notes")
OTHER = TemplateName("docs", "other")


def wish(agent_id: str, *, tenant: str = "acme", template: TemplateName = NOTES, request_id: str = "") -> NewAgent:
    agent = Agent(tenant=tenant, agent_id=agent_id, template=template, config=b'{"a":1}', created_at=NOW)
    digest = request_digest(template=template, agent_id=agent_id, config=agent.config)
    return NewAgent(agent=agent, request_id=request_id, request_sha256=digest)


@asynccontextmanager
async def sqlite_agents(directory: Path) -> AsyncIterator[AgentStore]:
    async with SqliteWriter(directory / "agents.db", schema="agents", durable=True, key=bytes(32)) as writer:
        yield SqliteAgents(writer, agents_max=10)


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AgentStore]:
    if request.param == "memory":
        yield MemoryAgents(agents_max=10)
    else:
        async with sqlite_agents(tmp_path) as opened:
            yield opened


async def test_a_created_agent_is_found_as_it_was_given(store: AgentStore) -> None:
    (made,) = await store.create([wish("one")])
    assert made == wish("one").agent
    assert await store.get("acme", "one") == made
    assert await store.count() == 1


async def test_agents_of_another_tenant_do_not_exist(store: AgentStore) -> None:
    await store.create([wish("one", tenant="rival")])
    assert await store.get("acme", "one") is None
    assert not await store.delete("acme", "one")
    assert await store.list("acme", template=None, after="", count_max=10) == []
    (made,) = await store.create([wish("one")])
    assert isinstance(made, Agent)


async def test_a_taken_id_is_refused_and_the_others_of_the_batch_are_made(store: AgentStore) -> None:
    await store.create([wish("one")])
    first, second = await store.create([wish("one"), wish("two")])
    assert isinstance(first, AgentExistsError)
    assert second == wish("two").agent


async def test_a_repeated_request_gets_the_first_answer_even_after_deletion(store: AgentStore) -> None:
    (first,) = await store.create([wish("one", request_id="r1")])
    (again,) = await store.create([wish("one", request_id="r1")])
    assert again == first
    assert await store.count() == 1
    await store.delete("acme", "one")
    assert (await store.create([wish("one", request_id="r1")]))[0] == first
    assert await store.count() == 0


async def test_a_request_id_of_another_request_is_refused(store: AgentStore) -> None:
    await store.create([wish("one", request_id="r1")])
    (refused,) = await store.create([wish("two", request_id="r1")])
    assert isinstance(refused, RequestIdReusedError)
    (other_tenant,) = await store.create([wish("two", request_id="r1", tenant="rival")])
    assert isinstance(other_tenant, Agent)


async def test_the_number_of_agents_is_bounded(store: AgentStore) -> None:
    made = await store.create([wish(f"a{index}") for index in range(11)])
    assert [isinstance(each, Agent) for each in made] == [True] * 10 + [False]
    assert isinstance(made[-1], AgentsExhaustedError)
    await store.delete("acme", "a0")
    assert isinstance((await store.create([wish("again")]))[0], Agent)


async def test_lists_are_ordered_paged_and_filtered(store: AgentStore) -> None:
    await store.create([wish("c"), wish("a"), wish("b", template=OTHER)])
    page = await store.list("acme", template=None, after="", count_max=2)
    assert [each.agent_id for each in page] == ["a", "b"]
    assert [each.agent_id for each in await store.list("acme", template=None, after="b", count_max=2)] == ["c"]
    assert [each.agent_id for each in await store.list("acme", template=NOTES, after="", count_max=9)] == ["a", "c"]


async def test_agents_survive_reopening(tmp_path: Path) -> None:
    async with sqlite_agents(tmp_path) as first:
        await first.create([wish("one", request_id="r1")])
    async with sqlite_agents(tmp_path) as second:
        assert await second.get("acme", "one") == wish("one").agent
        assert isinstance((await second.create([wish("two", request_id="r1")]))[0], RequestIdReusedError)


async def test_old_request_ids_are_forgotten(store: AgentStore) -> None:
    if isinstance(store, MemoryAgents):
        pytest.skip("the fake does not age")
    await store.create([wish("one", request_id="r1")])
    late = wish("two", request_id="r2")
    agent = Agent(
        tenant="acme", agent_id="two", template=NOTES, config=b"{}", created_at=NOW + timedelta(days=1, seconds=1)
    )
    await store.create([NewAgent(agent=agent, request_id="r2", request_sha256=late.request_sha256)])
    (fresh,) = await store.create([wish("three", request_id="r1")])
    assert isinstance(fresh, Agent)


async def test_what_one_job_raises_undoes_only_its_own_changes(tmp_path: Path) -> None:
    async with SqliteWriter(tmp_path / "agents.db", schema="agents", durable=True, key=bytes(32)) as writer:

        def fails(connection: object) -> None:
            connection.execute("UPDATE totals SET agents = 99")  # type: ignore[attr-defined]
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await writer.write(fails)
        assert await SqliteAgents(writer, agents_max=10).count() == 0


async def test_a_database_that_cannot_be_written_is_a_typed_error(tmp_path: Path) -> None:
    async with SqliteWriter(tmp_path / "agents.db", schema="agents", durable=True, key=bytes(32)) as writer:
        await writer.write(lambda connection: connection.execute("PRAGMA max_page_count = 1"))
        agents = SqliteAgents(writer, agents_max=1_000_000)
        big = Agent(tenant="acme", agent_id="big", template=NOTES, config=b"x" * 1_000_000, created_at=NOW)
        with pytest.raises(Exception, match="full") as refused:
            await agents.create([NewAgent(agent=big, request_id="", request_sha256="")])
        assert isinstance(refused.value, DatabaseFailedError)
        assert await agents.count() == 0


def test_the_newest_migrations_are_those_on_disk() -> None:
    migrations = Path(__file__).parents[2] / "data_plane" / "migrations"
    for schema, newest in NEWEST.items():
        names = sorted(path.name for path in (migrations / schema / "versions").glob("v*.py"))
        assert names[-1].startswith(f"v{newest}_")


def record(number: int, **changes: object) -> InvocationRecord:
    facts: dict[str, object] = {
        "invocation_id": f"{number:032x}",
        "tenant": "acme",
        "caller": "spiffe://td/tenant/acme/service/s",
        "agent_id": "",
        "template": "docs/notes",
        "version": "1.0.0",
        "generation": 3,
        "template_sha256": "aa",
        "code_sha256": "bb",
        "image_sha256": "",
        "config_sha256": "cc",
        "started_at": NOW + timedelta(seconds=number),
        "outcome": "OK",
        "message": "",
        "usage": UsageRecord(fuel=5, wall_us=7),
        "logs": (LogRecord("info", "hé\n", 12),),
        "logs_cut": True,
        "parent_invocation_id": "",
        **changes,
    }
    return InvocationRecord(**facts)  # type: ignore[arg-type]


@pytest.fixture(params=["memory", "sqlite"])
async def invocations(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[InvocationLog]:
    if request.param == "memory":
        yield MemoryInvocations()
    else:
        async with SqliteWriter(
            tmp_path / "invocations.db", schema="invocations", durable=False, key=bytes(32)
        ) as writer:
            yield SqliteInvocations(writer, kept_max=100, kept_s=3600)


async def test_a_recorded_invocation_is_found_at_once_with_its_logs(invocations: InvocationLog) -> None:
    invocations.record(record(1))
    assert await invocations.get("acme", record(1).invocation_id) == record(1)
    assert await invocations.get("rival", record(1).invocation_id) is None


async def test_what_grants_used_is_kept_with_the_rest(invocations: InvocationLog) -> None:
    used = GrantUsage(cost_microusd=1, file_read_bytes=2, file_written_bytes=3)
    invocations.record(record(1, usage=UsageRecord(fuel=5, grants=used)))
    kept = await invocations.get("acme", record(1).invocation_id)
    assert kept is not None
    assert kept.usage == UsageRecord(fuel=5, grants=used)


@pytest.mark.parametrize(
    "text", ['"\\', "é🙂\u2028", "\x00\x1b[31m\n", "'); DROP TABLE invocations; --", "\ufffd\uffff"]
)
async def test_what_a_record_says_comes_back_to_the_letter(invocations: InvocationLog, text: str) -> None:
    said = record(1, message=text, caller=text, logs=(LogRecord(text, text, 1),))  # names were checked long before
    invocations.record(said)
    assert await invocations.get("acme", said.invocation_id) == said


async def test_invocations_are_listed_newest_first_without_logs(invocations: InvocationLog) -> None:
    for number in range(5):
        invocations.record(record(number, agent_id="one" if number % 2 else "", template="docs/notes"))
    invocations.record(record(9, tenant="rival"))
    page = await invocations.list(InvocationFilter(tenant="acme", count_max=2))
    assert [each.invocation_id for each in page] == [record(4).invocation_id, record(3).invocation_id]
    assert page[0].logs == ()
    rest = await invocations.list(InvocationFilter(tenant="acme", before=page[-1].invocation_id))
    assert [each.invocation_id for each in rest] == [record(n).invocation_id for n in (2, 1, 0)]
    assert len(await invocations.list(InvocationFilter(tenant="acme", agent_id="one"))) == 2
    assert await invocations.list(InvocationFilter(tenant="acme", template="docs/none")) == []


async def test_a_record_that_another_call_is_writing_is_found_too(tmp_path: Path) -> None:
    async with SqliteWriter(tmp_path / "log.db", schema="invocations", durable=False, key=bytes(32)) as writer:
        log = SqliteInvocations(writer, kept_max=100, kept_s=3600)
        released = threading.Event()
        held = asyncio.ensure_future(writer.write(lambda _connection: released.wait(10)))
        await asyncio.sleep(0)
        log.record(record(1))
        writing = asyncio.ensure_future(log.flush())
        await asyncio.sleep(0)
        listing = asyncio.ensure_future(log.list(InvocationFilter(tenant="acme", count_max=10)))
        await asyncio.sleep(0.05)
        released.set()
        assert len(await listing) == 1
        await asyncio.gather(held, writing)


async def test_records_are_bounded_in_number_and_age(tmp_path: Path) -> None:
    async with SqliteWriter(tmp_path / "invocations.db", schema="invocations", durable=False, key=bytes(32)) as writer:
        log = SqliteInvocations(writer, kept_max=10, kept_s=3600)
        log._since_trim = 0
        for number in range(3):
            log.record(record(number - 100_000))
        await log.flush()
        for number in range(2_000):
            log.record(record(number))
        kept = await log.list(InvocationFilter(tenant="acme", count_max=5_000))
        assert [each.invocation_id for each in kept] == [record(n).invocation_id for n in range(1999, 1989, -1)]


async def test_a_full_queue_drops_the_oldest_and_counts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_plane.sqlite_invocations.QUEUE_MAX", 2)
    async with SqliteWriter(tmp_path / "invocations.db", schema="invocations", durable=False, key=bytes(32)) as writer:
        log = SqliteInvocations(writer, kept_max=10, kept_s=1e9)
        for number in range(3):
            log.record(record(number))
        assert len(await log.list(InvocationFilter(tenant="acme"))) == 2
        assert log.dropped == 1
