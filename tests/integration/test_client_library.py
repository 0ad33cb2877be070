"""The Python client against two real nodes: the synchronous and the asynchronous one keep the same promises."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest

from client import AgentFactory, AgentRequest, AsyncAgentFactory, Limits
from client.requests import AgentsNotCreatedError, UnknownTemplateError
from client.values import Answer, LogLine
from service.status import RemoteError
from templates.reasons import Reason
from tests.isolation import guests
from tests.node_process import NodeProcess
from tests.node_world import NodeWorld

SMALL = {"fuel": 50_000_000, "wall_ms": 3_000, "memory_bytes": 16 << 20}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NodeProcess, NodeProcess]]:
    world = NodeWorld.make(tmp_path_factory.mktemp("library"))
    config = {"type": "object", "properties": {"times": {"type": "integer"}}, "additionalProperties": False}
    world.publish(
        world.command("docs/echo", guests.ECHO, limits=SMALL, config_schema=config, capabilities=["repeat"]),
        world.command("docs/logger", guests.say(2, b"one\ntwo\n"), limits=SMALL),
        world.command("docs/spinner", guests.SPINNER, limits=SMALL),
        world.command("docs/sleeper", guests.sleeper(60_000_000_000), limits={**SMALL, "wall_ms": 60_000}),
        world.command("dev/twice", guests.ECHO, limits=SMALL),
        world.command("docs/twice", guests.ECHO, limits=SMALL),
    )
    for name in ("n1", "n2"):
        world.seed(name)
    with (
        NodeProcess(world.installation, world.environment("n1")) as one,
        NodeProcess(world.installation, world.environment("n2")) as two,
    ):
        yield one, two


def _arguments(nodes: tuple[NodeProcess, NodeProcess]) -> tuple[list[str], dict[str, Any]]:
    files = nodes[0].installation.service("web")
    names = {"certificate": files.certificate, "key": files.key, "authorities": files.authorities}
    return [node.target for node in nodes], names


@pytest.fixture
def factory(nodes: tuple[NodeProcess, NodeProcess]) -> Iterator[AgentFactory]:
    addresses, files = _arguments(nodes)
    with AgentFactory.connect(*addresses, **files) as connected:
        yield connected


@pytest.fixture
async def aio(nodes: tuple[NodeProcess, NodeProcess]) -> AsyncIterator[AsyncAgentFactory]:
    addresses, files = _arguments(nodes)
    async with AsyncAgentFactory.connect(*addresses, **files) as connected:
        yield connected


def test_an_agent_from_creation_to_deletion(factory: AgentFactory) -> None:
    agent = factory.create_agent("echo", suffix="sync", config={"times": 2})
    assert agent.name.endswith("/agents/echo-sync")
    assert "echo-sync" in repr(agent)
    assert agent.record.config == {"times": 2}
    assert agent.get_capabilities() == ("repeat",)
    answer = agent.process('{"n": 1}', limits=Limits(fuel=1_000_000))
    assert (str(answer), answer.json()) == ('{"n": 1}', {"n": 1})
    assert answer.receipt.to_json()["usage"]["fuel"] > 0
    assert agent.name in [one.name for one in factory.list_agents(template="docs/echo")]
    (record,) = factory.list_invocations(agent=agent.name)
    assert factory.get_invocation(record.invocation_id).receipt == replace(answer.receipt, salt="")
    agent.delete()
    with pytest.raises(RemoteError) as gone:
        factory.get_agent(agent.name)
    assert gone.value.reason is Reason.UNKNOWN_AGENT


async def test_an_agent_from_creation_to_deletion_for_asyncio(aio: AsyncAgentFactory) -> None:
    agent = await aio.create_agent("echo", suffix="async", config={"times": 2})
    assert agent.name.endswith("/agents/echo-async")
    assert "echo-async" in repr(agent)
    assert await agent.get_capabilities() == ("repeat",)
    answer = await agent.process('{"n": 1}', limits=Limits(fuel=1_000_000))
    assert answer.json() == {"n": 1}
    assert agent.name in [one.name async for one in aio.list_agents(template="docs/echo")]
    (record,) = await aio.list_invocations(agent=agent.name)
    assert (await aio.get_invocation(record.invocation_id)).receipt == replace(answer.receipt, salt="")
    await agent.delete()
    with pytest.raises(RemoteError) as gone:
        await aio.get_agent(agent.name)
    assert gone.value.reason is Reason.UNKNOWN_AGENT


def test_new_agents_take_turns_over_the_nodes_and_are_found_again(factory: AgentFactory) -> None:
    made = [factory.create_agent("docs/echo") for _ in range(4)]
    assert {agent.name.split("/")[1] for agent in made} == {"n1", "n2"}
    assert [agent.process("x").receipt.node for agent in made] == [agent.name.split("/")[1] for agent in made]


async def test_an_agent_is_found_at_its_home_by_a_client_that_knows_only_addresses(
    factory: AgentFactory, aio: AsyncAgentFactory
) -> None:
    names = [factory.create_agent("docs/echo").name for _ in range(2)]
    answers = [await aio.invoke(name, "x") for name in names]
    assert [answer.receipt.node for answer in answers] == [name.split("/")[1] for name in names]


async def test_a_batch_makes_what_can_be_made_and_names_the_rest(factory: AgentFactory, aio: AsyncAgentFactory) -> None:
    wanted = [AgentRequest(template="docs/echo"), AgentRequest(template="docs/echo", config={"colour": 1})]
    assert len(factory.create_agents(["docs/echo", "docs/logger"])) == 2
    assert len(await aio.create_agents(["echo", "docs/logger"])) == 2
    with pytest.raises(AgentsNotCreatedError, match="CONFIG_MISMATCH") as refused:
        factory.create_agents(wanted)
    assert (len(refused.value.created), list(refused.value.problems)) == (1, [1])
    with pytest.raises(AgentsNotCreatedError, match="expected 2 agents, got 1"):
        await aio.create_agents(wanted)


async def test_streams_bring_log_lines_first_and_the_answer_last(factory: AgentFactory, aio: AsyncAgentFactory) -> None:
    events = list(factory.stream("logger", "x"))
    later = [event async for event in aio.stream("logger", "x")]
    agent = factory.create_agent("docs/logger")
    of_agent = list(factory.stream(agent.name, "x"))
    for found in (events, later, of_agent):
        assert [line.message for line in found if isinstance(line, LogLine)] == ["one", "two"]
        assert isinstance(found[-1], Answer)


async def test_narrower_limits_hold_in_streams_too(factory: AgentFactory, aio: AsyncAgentFactory) -> None:
    with pytest.raises(RemoteError, match="at most 10 fuel"):
        list(factory.stream("docs/spinner", "", limits=Limits(fuel=10)))
    with pytest.raises(RemoteError, match="at most 10 fuel"):
        _ = [event async for event in aio.stream("docs/spinner", "", limits=Limits(fuel=10))]


async def test_failures_are_typed(factory: AgentFactory, aio: AsyncAgentFactory) -> None:
    with pytest.raises(RemoteError) as failed:
        factory.invoke_template("docs/spinner", "")
    assert failed.value.reason is Reason.FUEL
    assert factory.get_invocation(failed.value.metadata["invocation"]).outcome == "FUEL"
    with pytest.raises(RemoteError) as failed:
        await aio.invoke_template("docs/spinner", "")
    assert failed.value.reason is Reason.FUEL


async def test_a_bare_name_must_be_one_templates(factory: AgentFactory, aio: AsyncAgentFactory) -> None:
    with pytest.raises(UnknownTemplateError, match="dev/twice, docs/twice"):
        factory.invoke_template("twice", "")
    with pytest.raises(UnknownTemplateError, match="did you mean echo"):
        await aio.invoke_template("ecko", "")
    assert {one.template.partition("@")[0] for one in await aio.list_templates()} >= {"docs/echo", "dev/twice"}
    assert factory.list_templates()[0].to_json()["sha256"]


async def test_cancelling_the_awaiting_task_stops_the_guest(
    nodes: tuple[NodeProcess, NodeProcess], aio: AsyncAgentFactory
) -> None:
    task = asyncio.ensure_future(aio.invoke_template("docs/sleeper", ""))
    async with asyncio.timeout(30):
        while not any(node.status().in_flight for node in nodes):  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(30):
        while any(node.status().in_flight for node in nodes):  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.05)


def test_a_deadline_bounds_the_guest_too(factory: AgentFactory, nodes: tuple[NodeProcess, NodeProcess]) -> None:
    with pytest.raises(RemoteError) as late:
        factory.invoke_template("docs/sleeper", "", timeout_s=1.0)
    assert late.value.reason in {Reason.DEADLINE, Reason.DEADLINE_EXCEEDED}


def test_invocations_of_every_node_are_listed_newest_first(factory: AgentFactory) -> None:
    ran = [factory.invoke_template("docs/echo", str(n)).receipt.invocation_id for n in range(4)]
    found = factory.list_invocations(template="docs/echo", count=4)
    assert {one.invocation_id for one in found} == set(ran)
    assert [one.started for one in found] == sorted((one.started for one in found), reverse=True)
