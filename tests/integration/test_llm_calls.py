"""The broker's side of ``llm`` against a server that speaks the protocol: streams, amountss, retries, the books."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from data_plane.admission.circuit_breaker import BreakerSettings, CircuitBreakers
from data_plane.agents.agent import AgentScope
from data_plane.broker.amounts import Amount, Amounts
from data_plane.broker.answers import ErrorKind, HostRefusal, Members
from data_plane.broker.llm_budget import LlmAllowances
from data_plane.broker.llm_cache import AnswerCache, CacheBounds
from data_plane.broker.secret_binding import Secret, SecretUnusableError
from data_plane.egress_connect import SystemResolver
from data_plane.llm_bindings import offered_bindings
from data_plane.llm_calls import STREAMS_MAX, LlmCaller, LlmCalls, LlmInvocation
from data_plane.llm_settings import LlmBindingSettings
from data_plane.sealed_rows import RowDamagedError
from data_plane.sqlite_llm_use import LlmAccount, SqliteLlmUse
from data_plane.sqlite_writer import SqliteWriter
from sandbox.limits import SandboxLimits
from service.tasks import TaskSupervisor
from service.telemetry import Telemetry
from templates.grants import LlmGrant
from templates.names import TemplateName
from tests.http_server import ServerTls, server_tls
from tests.llm_server import LlmServer, llm_server

SECRET = "sk-0123456789abcdefghijkl"
MODELS = (
    "echo", "count", "silent", "leaky", "busy-once", "busy", "broken", "forbidden", "slow", "garbled", "endless",
    "abrupt", "overloaded",
)  # fmt: skip
PRICED = {"input_usd_per_million": 1, "output_usd_per_million": 2}
NOON = 43_200.0


@dataclass
class World:
    server: LlmServer
    calls: LlmCalls
    tasks: TaskSupervisor
    writer: SqliteWriter
    now: list[float] = field(default_factory=lambda: [NOON])

    def invocation(
        self,
        *,
        tenant: str = "acme",
        agent: str = "a1",
        seconds: float = 5.0,
        tokens_max: int = 10_000,
        **limits: int,
    ) -> tuple[LlmInvocation, Amounts]:
        name = TemplateName("docs", "asker")
        granted = LlmGrant(binding="default", models=MODELS, tokens_max=1_000)
        amounts = Amounts(SandboxLimits(tokens=tokens_max, **limits))
        caller = LlmCaller(
            scope=AgentScope(tenant=tenant, template=name, agent_id=agent),
            grants=(granted,),
            allowances=LlmAllowances((granted,)),
            amounts=amounts,
            deadline=asyncio.get_running_loop().time() + seconds,
        )
        return LlmInvocation(self.calls, caller), amounts

    async def used(self, *, tenant: str = "acme", agent: str = "a1") -> tuple[int, int, int, int]:
        scope = AgentScope(tenant=tenant, template=TemplateName("docs", "asker"), agent_id=agent)
        day = int(self.now[0] // 86_400)
        account = LlmAccount(scope=scope, binding="default", day=day)
        mine, all_of_tenant = await self.writer.write(  # behind everything that is queued
            lambda connection: account.used(connection, self.writer.seals)
        )
        return mine.tokens, mine.cost_microusd, all_of_tenant.tokens, all_of_tenant.cost_microusd

    def metric(self, name: str, **labels: str) -> float:
        return self.calls.telemetry.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ServerTls:
    return server_tls(tmp_path_factory.mktemp("tls"), "localhost")


class Secrets:
    """`SecretKeeper` of one secret."""

    async def secret(self, name: str) -> Secret:
        if name != "openai":
            raise SecretUnusableError(f"expected the secret {name}")
        return Secret(name=name, value=SECRET)


@asynccontextmanager
async def world_of(
    tls: ServerTls, directory: Path, *, breaker: BreakerSettings | None = None, streams_max: int = 10, **binding: Any
) -> AsyncIterator[World]:
    resolver = SystemResolver()
    now = [NOON]
    async with (
        llm_server(tls=tls) as server,
        SqliteWriter(directory / "llm_use.db", schema="llm_use", durable=False, key=b"k" * 32) as writer,
        TaskSupervisor() as tasks,
    ):
        settings = LlmBindingSettings.model_validate(
            {
                "base_url": server.base_url,
                "networks": ["127.0.0.1/32"],
                "ca_file": tls.ca_file,
                "models": dict.fromkeys(MODELS, PRICED),
                "timeout_s": 2,
                **binding,
            }
        )
        loop = asyncio.get_running_loop()
        calls = LlmCalls(
            bindings=offered_bindings({"default": settings}, resolver=resolver, secrets=Secrets(), monotonic=loop.time),
            use=SqliteLlmUse(writer),
            cache=AnswerCache(CacheBounds(ttl_s=60, entries_max=10, bytes_max=100_000), loop.time),
            breakers=CircuitBreakers(breaker or BreakerSettings(calls_min=1_000)),
            tasks=tasks,
            telemetry=Telemetry(),
            clock=lambda: now[0],
            monotonic=loop.time,
            streams_max=streams_max,
        )
        yield World(server=server, calls=calls, tasks=tasks, writer=writer, now=now)
    resolver.close()


def members(model: str = "echo", say: str = "hello there", **more: object) -> Members:
    request = {"model": model, "messages": [{"role": "user", "content": say}], **more}
    return Members({"binding": "default", "request": json.dumps(request)})


async def refusal(invocation: LlmInvocation, function: str, given: Members) -> HostRefusal:
    with pytest.raises(HostRefusal) as caught:
        await invocation.call(function, given)
    return caught.value


async def drained(invocation: LlmInvocation, number: Any) -> tuple[str, dict[str, Any]]:
    text, last = "", {}
    while (piece := await invocation.call("next", Members({"number": number}))) is not None:
        assert isinstance(piece, dict)
        text += str(piece["delta"])
        last = piece
    return text, last


# Whole answers


async def test_an_answer_is_paid_for_as_the_endpoint_counts(tls: ServerTls, tmp_path: Path) -> None:
    async with world_of(tls, tmp_path, agent_tokens_per_day=1_000) as world:
        invocation, amounts = world.invocation()
        answer = await invocation.call("complete", members(max_tokens=5))
        assert answer == {
            "text": "echo: hello there",
            "model": "echo",
            "finish_reason": "stop",
            "usage": {"input_tokens": 2, "output_tokens": 3},
            "cached": False,
        }
        sent_bytes, received_bytes, tokens, _ = amounts.used
        assert sent_bytes > 100
        assert received_bytes > 100
        assert tokens == 5
        assert amounts.left(Amount.TOKENS) == 9_995
        assert [each.tokens for each in invocation._caller.allowances.of("default")] == [995]
        assert await world.used() == (5, 8, 5, 8)
        assert world.metric("agentfactory_llm_tokens_total", binding="default") == 5
        assert world.metric("agentfactory_llm_calls_total", binding="default", result="ok") == 1


async def test_what_an_endpoint_does_not_count_is_charged_as_reserved(tls: ServerTls, tmp_path: Path) -> None:
    async with world_of(tls, tmp_path) as world:
        invocation, amounts = world.invocation()
        answer = await invocation.call("complete", members("silent", max_tokens=50))
        assert isinstance(answer, dict)
        assert answer["usage"] == {"input_tokens": 7, "output_tokens": 50}
        assert amounts.used[2] == 57


@pytest.mark.parametrize(("model", "charged"), [("broken", 0), ("busy", 0), ("garbled", 57), ("slow", 57)])
async def test_only_what_may_have_been_worked_for_is_charged(
    tls: ServerTls, tmp_path: Path, model: str, charged: int
) -> None:
    timeout_s = 0.3 if model == "slow" else 30.0
    async with world_of(tls, tmp_path, timeout_s=timeout_s, agent_tokens_per_day=1_000) as world:
        invocation, amounts = world.invocation()
        await refusal(invocation, "complete", members(model, max_tokens=50))
        assert amounts.used[2] == charged
        assert (await world.used())[0] == charged


async def test_an_endpoint_that_is_not_there_costs_nothing(tls: ServerTls, tmp_path: Path) -> None:
    async with world_of(tls, tmp_path, base_url="https://localhost:9/v1") as world:
        invocation, amounts = world.invocation()
        assert (await refusal(invocation, "complete", members())).kind is ErrorKind.FAILED
        assert amounts.used[2] == 0


async def test_a_short_wait_that_the_endpoint_asks_for_is_waited(tls: ServerTls, tmp_path: Path) -> None:
    async with world_of(tls, tmp_path) as world:
        invocation, _ = world.invocation()
        answer = await invocation.call("complete", members("busy-once"))
        assert isinstance(answer, dict)
        assert answer["text"] == "echo: hello there"
        assert world.server.count("busy-once") == 2
        said = await refusal(invocation, "complete", members("busy"))
        assert said.message == "the endpoint answered 429 and asks to wait 3600 s: slow down"
        assert world.server.count("busy") == 1
        await refusal(invocation, "complete", members("broken"))
        assert world.server.count("broken") == 1


async def test_an_endpoints_words_cannot_steer_a_terminal(tls: ServerTls, tmp_path: Path) -> None:
    async with world_of(tls, tmp_path) as world:
        invocation, _ = world.invocation()
        said = await refusal(invocation, "complete", members("broken"))
        assert said.message == "the endpoint answered 500: out of order [31m X-Injected: 1"


async def test_the_key_is_sent_and_never_comes_back(tls: ServerTls, tmp_path: Path) -> None:
    async with world_of(tls, tmp_path, secret="openai") as world:
        invocation, _ = world.invocation()
        answer = await invocation.call("complete", members("leaky"))
        assert isinstance(answer, dict)
        assert answer["text"] == "the key is Bearer [secret] indeed"
        assert world.server.keys == [f"Bearer {SECRET}"]
        text, _last = await drained(invocation, await invocation.call("open", members("leaky")))
        assert text == "the key is Bearer [secret] indeed"
        said = await refusal(invocation, "complete", members("forbidden"))
        assert said.message == "the endpoint answered 401: bad key: Bearer [secret]"
        said = await refusal(invocation, "open", members("overloaded"))
        assert said.message == "the endpoint broke off: overloaded Bearer [secret]"


async def test_a_missing_key_is_the_nodes_failure_and_costs_nothing(tls: ServerTls, tmp_path: Path) -> None:
    async with world_of(tls, tmp_path, secret="missing") as world:
        invocation, amounts = world.invocation()
        assert (
            await refusal(invocation, "complete", members())
        ).message == "the node cannot use the secret of this binding"
        assert world.server.requests == []
        assert amounts.used[2] == 0


# Budgets


async def test_an_agent_has_so_much_a_day_and_its_tenant_so_much(tls: ServerTls, tmp_path: Path) -> None:
    async with world_of(tls, tmp_path, agent_tokens_per_day=30, tenant_tokens_per_day=45) as world:
        for agent, kind in [("a1", None), ("a1", None), ("a1", ErrorKind.QUOTA), ("a2", None), ("a3", ErrorKind.QUOTA)]:
            invocation, _ = world.invocation(agent=agent)
            given = members(say="word " * 10, max_tokens=2)
            if kind is None:
                await invocation.call("complete", given)
            else:
                assert (await refusal(invocation, "complete", given)).kind is kind
        assert await world.used(agent="a1") == (23, 26, 35, 40)
        assert await world.used(agent="a2") == (12, 14, 35, 40)
        other, _ = world.invocation(tenant="rival")
        await other.call("complete", members(say="word " * 10, max_tokens=2))
        world.now[0] += 86_400
        invocation, _ = world.invocation()
        await invocation.call("complete", members())


async def test_a_restart_gives_nothing_back(tls: ServerTls, tmp_path: Path) -> None:
    for expected in (None, ErrorKind.QUOTA):
        async with world_of(tls, tmp_path, agent_usd_per_day="0.00002") as world:
            invocation, _ = world.invocation()
            given = members(say="word " * 10)
            if expected is None:
                await invocation.call("complete", given)
            else:
                assert (await refusal(invocation, "complete", given)).kind is expected


async def test_a_changed_amount_on_disk_is_noticed_and_nothing_is_asked(tls: ServerTls, tmp_path: Path) -> None:
    async with world_of(tls, tmp_path, tenant_tokens_per_day=100) as world:
        invocation, _ = world.invocation()
        await invocation.call("complete", members())
        await world.writer.write(lambda connection: connection.execute("UPDATE llm_use SET tokens = 0").rowcount)
        with pytest.raises(RowDamagedError):
            await invocation.call("complete", members())
        assert len(world.server.requests) == 1


async def test_calls_at_once_cannot_use_more_than_the_day_has(tls: ServerTls, tmp_path: Path) -> None:
    async with world_of(tls, tmp_path, tenant_tokens_per_day=100) as world:

        async def one(number: int) -> int:
            invocation, amounts = world.invocation(agent=f"a{number}")
            try:
                await invocation.call("complete", members(max_tokens=20))
            except HostRefusal:
                return 0
            return amounts.used[2]

        charged = await asyncio.gather(*[one(number) for number in range(20)])
        assert 0 < sum(charged) <= 100
        assert (await world.used())[2] == sum(charged)


async def test_the_limits_of_an_invocation_bound_all_bindings_together(tls: ServerTls, tmp_path: Path) -> None:
    async with world_of(tls, tmp_path) as world:
        invocation, _ = world.invocation(tokens_max=8)
        answer = await invocation.call("complete", members())
        assert isinstance(answer, dict)
        assert answer["finish_reason"] == "length"
        assert (await refusal(invocation, "complete", members())).kind is ErrorKind.BUDGET


async def test_bytes_are_bounded_as_well(tls: ServerTls, tmp_path: Path) -> None:
    async with world_of(tls, tmp_path) as world:
        invocation, amounts = world.invocation(sent_bytes=50)
        assert (await refusal(invocation, "complete", members())).kind is ErrorKind.BUDGET
        assert world.server.requests == []
        assert amounts.used == [0, 0, 0, 0]
        invocation, _ = world.invocation(received_bytes=50)
        assert (await refusal(invocation, "complete", members())).kind is ErrorKind.QUOTA


# Streams


async def test_a_stream_gives_pieces_and_then_the_books(tls: ServerTls, tmp_path: Path) -> None:
    async with world_of(tls, tmp_path, tenant_tokens_per_day=1_000) as world:
        invocation, amounts = world.invocation()
        text, last = await drained(invocation, await invocation.call("open", members(say="a b c")))
        assert text == "echo: a b c"
        assert last == {
            "delta": "",
            "model": "echo",
            "finish_reason": "stop",
            "usage": {"input_tokens": 3, "output_tokens": 4},
            "cached": False,
        }
        assert amounts.used[2] == 7
        assert await world.used() == (7, 11, 7, 11)


async def test_pieces_come_while_the_endpoint_still_speaks(tls: ServerTls, tmp_path: Path) -> None:
    async with world_of(tls, tmp_path) as world:
        invocation, amounts = world.invocation()
        number = await invocation.call("open", members("endless", max_tokens=50))
        for _ in range(3):
            piece = await invocation.call("next", Members({"number": number}))
            assert isinstance(piece, dict)
            assert str(piece["delta"]).startswith("on and ")
        assert world.tasks.running == 1
        await invocation.call("close", Members({"number": number}))
        assert amounts.used[2] == 57
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert world.tasks.running == 0
        assert (await refusal(invocation, "next", Members({"number": number}))).kind is ErrorKind.NOT_FOUND


async def test_what_an_invocation_leaves_open_ends_with_it_and_is_charged(tls: ServerTls, tmp_path: Path) -> None:
    async with world_of(tls, tmp_path, agent_tokens_per_day=1_000) as world:
        invocation, amounts = world.invocation()
        for _ in range(STREAMS_MAX):
            await invocation.call("open", members("endless", max_tokens=50))
        assert (await refusal(invocation, "open", members())).kind is ErrorKind.QUOTA
        invocation.close()
        assert amounts.used[2] == STREAMS_MAX * 57
        assert world.calls.streams == set()
        assert (await world.used())[0] == STREAMS_MAX * 57
        async with asyncio.timeout(30):
            while world.tasks.running:  # noqa: ASYNC110 - tasks that nobody awaits have no event
                await asyncio.sleep(0.01)


async def test_a_node_has_only_so_many_streams(tls: ServerTls, tmp_path: Path) -> None:
    async with world_of(tls, tmp_path, streams_max=1) as world:
        first, _ = world.invocation()
        second, _ = world.invocation(tenant="rival")
        await first.call("open", members("endless"))
        assert (await refusal(second, "open", members())).kind is ErrorKind.QUOTA
        first.close()
        await second.call("open", members())
        second.close()


@pytest.mark.parametrize(
    ("model", "text"),
    [("abrupt", "half of "), ("overloaded", "half of "), ("garbled", "")],
)
async def test_a_stream_that_breaks_gives_what_came_before(
    tls: ServerTls, tmp_path: Path, model: str, text: str
) -> None:
    async with world_of(tls, tmp_path) as world:
        invocation, amounts = world.invocation()
        got = ""
        try:
            number = await invocation.call("open", members(model, max_tokens=50))
            while isinstance(piece := await invocation.call("next", Members({"number": number})), dict):
                got += str(piece["delta"])
        except HostRefusal as refused:
            got += f", {refused.kind}"
        assert got == f"{text}, failed"
        assert amounts.used[2] == 57


async def test_refusals_come_when_a_stream_is_opened(tls: ServerTls, tmp_path: Path) -> None:
    async with world_of(tls, tmp_path) as world:
        invocation, amounts = world.invocation()
        for model in ("broken", "busy", "forbidden"):
            assert (await refusal(invocation, "open", members(model))).kind is ErrorKind.FAILED
        assert amounts.used[2] == 0
        assert world.calls.streams == set()


async def test_a_cancelled_host_call_gives_back_what_was_never_sent(tls: ServerTls, tmp_path: Path) -> None:
    async with world_of(tls, tmp_path, agent_tokens_per_day=1_000) as world:
        invocation, _ = world.invocation()
        task = asyncio.ensure_future(invocation.call("complete", members(max_tokens=50)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await world.used())[0] == 0


async def test_a_binding_without_streaming_gives_one_piece(tls: ServerTls, tmp_path: Path) -> None:
    async with world_of(tls, tmp_path, streaming=False) as world:
        invocation, _ = world.invocation()
        text, last = await drained(invocation, await invocation.call("open", members(say="a b c")))
        assert (text, last["finish_reason"]) == ("echo: a b c", "stop")
        assert "stream" not in world.server.requests[0]


async def test_a_stream_that_ended_is_answered_from_the_cache(tls: ServerTls, tmp_path: Path) -> None:
    async with world_of(tls, tmp_path) as world:
        first, _ = world.invocation()
        text, _last = await drained(first, await first.call("open", members("count", temperature=0)))
        second, amounts = world.invocation(agent="a2")
        answer = await second.call("complete", members("count", temperature=0))
        assert isinstance(answer, dict)
        assert (answer["text"], answer["cached"], amounts.used[2]) == (text, True, 0)
        assert world.metric("agentfactory_llm_calls_total", binding="default", result="cached") == 1


# The breaker


async def test_nobody_waits_for_an_endpoint_that_keeps_failing(tls: ServerTls, tmp_path: Path) -> None:
    settings = BreakerSettings(calls_min=3, pause_s_first=1.0, trials_needed=1)
    async with world_of(tls, tmp_path, breaker=settings) as world:
        invocation, _ = world.invocation()
        for _ in range(3):
            await refusal(invocation, "complete", members("broken"))
        said = await refusal(invocation, "complete", members())
        assert "keeps failing" in said.message
        assert len(world.server.requests) == 3
        rival, _ = world.invocation(tenant="rival")
        await rival.call("complete", members())
        await asyncio.sleep(1.25)
        await invocation.call("complete", members())


async def test_refusals_of_a_request_do_not_blame_the_endpoint(tls: ServerTls, tmp_path: Path) -> None:
    async with world_of(tls, tmp_path, breaker=BreakerSettings(calls_min=3)) as world:
        invocation, _ = world.invocation()
        for _ in range(6):
            await refusal(invocation, "complete", members("forbidden"))
        await invocation.call("complete", members())


# What a worker may say


@pytest.mark.parametrize(
    ("function", "given"),
    [
        ("complete", {}),
        ("complete", {"binding": "default"}),
        ("complete", {"binding": "default", "request": {}}),
        ("complete", {"binding": "default", "request": "{}", "tenant": "rival"}),
        ("open", {"binding": 7, "request": "{}"}),
        ("next", {}),
        ("next", {"number": -1}),
        ("next", {"number": "1"}),
        ("close", {"number": 1, "binding": "default"}),
        ("reveal", {}),
    ],
)
async def test_what_is_no_call_is_refused(tls: ServerTls, tmp_path: Path, function: str, given: dict[str, Any]) -> None:
    async with world_of(tls, tmp_path) as world:
        invocation, _ = world.invocation()
        assert (await refusal(invocation, function, Members(given))).kind is ErrorKind.INVALID
        assert world.server.requests == []


async def test_a_stream_belongs_to_its_invocation(tls: ServerTls, tmp_path: Path) -> None:
    async with world_of(tls, tmp_path) as world:
        mine, _ = world.invocation()
        other, _ = world.invocation(tenant="rival")
        number = await mine.call("open", members("endless"))
        assert (await refusal(other, "next", Members({"number": number}))).kind is ErrorKind.NOT_FOUND
        await other.call("close", Members({"number": number}))
        assert await mine.call("next", Members({"number": number}))
        mine.close()
