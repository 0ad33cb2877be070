"""The llm grant whole: a Python agent in a real node's sandbox, and an endpoint over TLS on loopback."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agentfactory.agent.v1 import agent_pb2 as pb

from tests.http_server import ServerTls, server_tls
from tests.isolation import guests
from tests.llm_server import LlmServer, threaded_llm_server
from tests.node_process import NodeProcess, invoke
from tests.node_world import Approved, NodeWorld

pytestmark = pytest.mark.toolchain

MODELS = [
    "echo", "count", "silent", "leaky", "busy-once", "busy", "broken", "forbidden", "moved", "slow", "garbled",
    "endless", "abrupt", "overloaded",
]  # fmt: skip
AGENT = """
import json
from agentfactory_sdk import HostError, agents, llm

def process(text):
    asked = json.loads(text)
    how, binding = asked.pop("how", "complete"), asked.pop("binding", "default")
    said = asked.pop("say", "hello there")
    try:
        if how == "complete":
            answer = llm.complete(binding, said, **asked)
            return [answer.text, answer.finish_reason, answer.usage.input_tokens, answer.usage.output_tokens,
                    answer.cached]
        if how == "child":
            return agents.invoke("docs/asker", {"say": said, **asked})
        if how == "leave open":
            return [next(iter(llm.stream(binding, said, **asked))) for _ in range(asked.pop("times", 1))]
        pieces = []
        with llm.stream(binding, said, **asked) as stream:
            for piece in stream:
                pieces.append(piece)
            return [pieces, stream.answer.text, stream.answer.finish_reason, stream.answer.usage.output_tokens,
                    stream.answer.cached]
    except HostError as error:
        return {"kind": error.kind, "message": error.message}
"""


def grants(tokens_max: int = 5_000, **more: int) -> dict[str, Any]:
    return {"llm": [{"binding": "default", "models": MODELS, "tokens_max": tokens_max, **more}]}


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ServerTls:
    return server_tls(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.fixture(scope="module")
def server(tls: ServerTls) -> Iterator[LlmServer]:
    with threaded_llm_server(tls=tls) as server:
        yield server


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> NodeWorld:
    world = NodeWorld.make(tmp_path_factory.mktemp("world"))
    limits = {"wall_ms": 5_000}
    world.publish(
        world.source("docs/asker", AGENT, grants=grants(), limits=limits, callers=["*/*"]),
        world.source("docs/frugal", AGENT, grants=grants(tokens_max=20), limits=limits),
        world.source("docs/parent", AGENT, grants={**grants(tokens_max=12), "agents": ["docs/asker"]}, limits=limits),
        world.source("docs/delegate", AGENT, grants={"agents": ["docs/asker"]}, limits=limits),
        world.source("docs/priced", AGENT, grants=grants(cost_max_microusd=30), limits=limits),
        world.source("docs/ungranted", AGENT, limits=limits),
        command(world, "command"),
    )
    world.seed()
    return world


def command(world: NodeWorld, name: str, **asked: object) -> Approved:
    """Approve a small module that asks once; it needs no image to be compiled."""
    request = {"messages": [{"role": "user", "content": "hello there"}], **asked}
    argument = json.dumps({"binding": "default", "request": json.dumps(request)}).encode()
    return world.command(f"docs/{name}", guests.ask(b"llm.complete", argument), grants=grants())


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> NodeWorld:
    world = NodeWorld.make(tmp_path_factory.mktemp("small"))
    long = [{"role": "user", "content": "word " * 30}]
    world.publish(
        command(world, "leaky", model="leaky"),
        command(world, "forbidden", model="forbidden"),
        command(world, "long", messages=long, max_tokens=10),
    )
    world.seed()
    return world


def bindings(server: LlmServer, tls: ServerTls, **more: object) -> str:
    priced = {"input_usd_per_million": 1, "output_usd_per_million": 2.5}
    return json.dumps(
        {
            "default": {
                "base_url": server.base_url,
                "networks": ["127.0.0.1/32"],
                "ca_file": str(tls.ca_file),
                "models": {name: priced if name == "echo" else {} for name in MODELS},
                "timeout_s": 2,
                **more,
            }
        }
    )


@pytest.fixture(scope="module")
def node(world: NodeWorld, server: LlmServer, tls: ServerTls) -> Iterator[NodeProcess]:
    environment = world.environment(llm_bindings=bindings(server, tls))
    with NodeProcess(world.installation, environment) as process:
        yield process


def ask(node: NodeProcess, template: str = "docs/asker", *, tenant: str = "acme", **asked: object) -> Any:
    return json.loads(invoke(node.agents(tenant), template, json.dumps(asked)).output)


def test_an_agent_gets_an_answer_over_tls(node: NodeProcess, server: LlmServer) -> None:
    assert ask(node, max_tokens=50) == ["echo: hello there", "stop", 2, 3, False]
    assert server.requests[-1] == {
        "model": "echo",
        "messages": [{"role": "user", "content": "hello there"}],
        "max_tokens": 50,
    }


def test_the_receipt_says_what_the_operators_prices_make_of_it(node: NodeProcess) -> None:
    asked = json.dumps({"say": "what does this cost", "model": "echo"})
    receipt = invoke(node.agents(), "docs/asker", asked).receipt
    tokens_in, tokens_out = json.loads(invoke(node.agents(), "docs/asker", asked).output)[2:4]
    assert receipt.usage.tokens == tokens_in + tokens_out
    assert receipt.usage.cost_microusd == -(-(2 * tokens_in + 5 * tokens_out) // 2) > 0
    assert json.loads(receipt.statement)["usage"]["cost_microusd"] == receipt.usage.cost_microusd
    looked_up = node.agents().GetInvocation(pb.GetInvocationRequest(invocation_id=receipt.invocation_id))
    assert looked_up.receipt.statement == receipt.statement
    assert looked_up.receipt.usage.cost_microusd == receipt.usage.cost_microusd
    unpriced = invoke(node.agents(), "docs/asker", json.dumps({"model": "count"})).receipt
    assert unpriced.usage.tokens > 0
    assert "cost_microusd" not in json.loads(unpriced.statement)["usage"]


def test_an_agent_gets_an_answer_in_pieces(node: NodeProcess) -> None:
    pieces, text, reason, tokens, cached = ask(node, how="stream", say="one two three " * 40)
    assert "".join(pieces) == text == f"echo: {'one two three ' * 40}"
    assert (reason, tokens, cached) == ("stop", 122, False)


def test_a_command_reaches_the_same_table(node: NodeProcess) -> None:
    answer = json.loads(invoke(node.agents(), "docs/command", "").output)
    assert answer["ok"]["text"] == "echo: hello there"


def test_an_answer_given_before_costs_nothing_and_says_so(node: NodeProcess) -> None:
    first = ask(node, model="count", temperature=0, say="the same")
    assert first[4] is False
    assert ask(node, model="count", temperature=0, say="the same") == [first[0], "stop", 0, 0, True]
    pieces, text, _, tokens, cached = ask(node, how="stream", model="count", temperature=0, say="the same")
    assert (pieces, text, tokens, cached) == ([first[0]], first[0], 0, True)
    assert ask(node, model="count", temperature=0, say="the same", cache=False)[4] is False
    assert ask(node, model="count", say="the same")[4] is False


def test_no_tenant_sees_anothers_answers(node: NodeProcess) -> None:
    mine = ask(node, model="count", temperature=0, say="a question")
    theirs = ask(node, model="count", temperature=0, say="a question", tenant="rival")
    assert theirs[4] is False
    assert theirs[0] != mine[0]


def test_the_answer_is_cut_to_what_the_grant_leaves(node: NodeProcess) -> None:
    text, reason, _, tokens, _ = ask(node, "docs/frugal", say="a b c d e f g h i j k l m n o p q r s t")
    assert reason == "length"
    assert tokens == len(text.split()) < 20


def test_what_is_used_up_is_refused(node: NodeProcess) -> None:
    assert ask(node, "docs/frugal", say="x" * 400)["kind"] == "budget"
    refused = ask(node, "docs/priced", say="x" * 400)
    assert refused["kind"] == "budget"
    assert ask(node, "docs/priced", model="count")["kind"] == "denied"
    assert ask(node, "docs/priced")[1] == "stop"


def test_a_child_draws_from_its_own_grant_and_from_its_callers(node: NodeProcess) -> None:
    assert ask(node, "docs/delegate", how="child")[0] == "echo: hello there"
    assert ask(node, "docs/delegate", how="child", say="a b c d e f g")[:2] == ["echo: a b c d e f g", "stop"]
    assert ask(node, "docs/parent", how="child", say="a b c d e f g")[:2] == ["echo: a b c", "length"]
    assert ask(node, "docs/parent", how="child", say="a b c d e f g h i j k l m n o p")["kind"] == "budget"


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        ({"binding": "other"}, "denied"),
        ({"model": "gpt-unheard-of"}, "denied"),
        ({"max_tokens": 0}, "invalid"),
        ({"temperature": 9}, "invalid"),
        ({"model": "broken"}, "failed"),
        ({"model": "busy"}, "failed"),
        ({"model": "moved"}, "failed"),
        ({"model": "garbled"}, "failed"),
        ({"model": "slow"}, "budget"),
        ({"model": "endless"}, "quota"),
        ({"model": "garbled", "how": "stream"}, "failed"),
        ({"model": "abrupt", "how": "stream"}, "failed"),
        ({"model": "overloaded", "how": "stream"}, "failed"),
        ({"model": "endless", "how": "stream"}, "budget"),
    ],
)
def test_every_way_to_fail_is_a_typed_answer(node: NodeProcess, asked: dict[str, Any], kind: str) -> None:
    for _ in range(2):  # or the breaker would open before the last of these cases
        ask(node, tenant="stranger")
    answer = ask(node, tenant="stranger", **asked)
    assert answer["kind"] == kind, answer


def test_what_was_not_granted_is_denied_before_anything_leaves(node: NodeProcess, server: LlmServer) -> None:
    before = len(server.requests)
    assert ask(node, "docs/ungranted")["kind"] == "denied"
    assert len(server.requests) == before


def test_a_stream_that_is_left_open_is_charged_and_closed(node: NodeProcess) -> None:
    asked = {"how": "leave open", "model": "endless", "times": 3, "max_tokens": 20}
    answer = invoke(node.agents(), "docs/asker", json.dumps(asked))
    pieces = json.loads(answer.output)
    assert isinstance(pieces, list), pieces
    assert all(each.startswith("on and ") for each in pieces), pieces
    assert node.status().in_flight == 0


def test_prompts_answers_and_keys_are_in_no_log(world: NodeWorld, node: NodeProcess) -> None:
    ask(node, say="a canary in a prompt")
    ask(node, model="broken", say="a canary in a failed prompt")
    text = json.dumps(node.lines)
    assert "canary" not in text
    assert "out of order" not in text


KEY = "sk-canary-0123456789abcdef"


def told(node: NodeProcess, template: str, tenant: str = "acme") -> dict[str, Any]:
    answer: dict[str, dict[str, Any]] = json.loads(invoke(node.agents(tenant), template, "").output)
    return answer["ok"] if "ok" in answer else answer["error"]


def test_a_days_amount_outlives_the_node_and_the_key_stays_with_it(
    small_world: NodeWorld, server: LlmServer, tls: ServerTls, tmp_path: Path
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "openai").touch(mode=0o600)
    (secrets / "openai").write_text(KEY + "\n")
    chosen = bindings(server, tls, secret="openai", agent_tokens_per_day=60, tenant_tokens_per_day=100)
    environment = small_world.environment(llm_bindings=chosen, secrets_directory=str(secrets))
    with NodeProcess(small_world.installation, environment) as node:
        assert told(node, "docs/leaky")["text"] == "the key is Bearer [secret] indeed"
        assert told(node, "docs/forbidden")["message"] == "the endpoint answered 401: bad key: Bearer [secret]"
        assert server.keys[-1] == f"Bearer {KEY}"
        assert told(node, "docs/long")["usage"] == {"input_tokens": 30, "output_tokens": 10}
        assert told(node, "docs/long")["kind"] == "quota"
        assert KEY not in json.dumps(node.lines)
        node.kill()
    with NodeProcess(small_world.installation, environment) as node:
        assert told(node, "docs/long")["kind"] == "quota"
        assert told(node, "docs/long", "rival")["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"base_url": "http://llm.example/v1", "networks": []}, "https"),
        ({"base_url": "https://llm.example/v1?x=1"}, "expected https"),
        ({"base_url": "https://LLM.example/v1"}, "lower-case"),
        ({"networks": ["10.0.0.1/8"]}, "host bits"),
        ({"models": {}}, "at least 1"),
        ({"agent_usd_per_day": 5, "models": {"echo": {}}}, "price"),
        ({"models": {"echo": {"input_usd_per_million": 1}}}, "both prices"),
        ({"api_key": "sk-123"}, "Extra inputs"),
        ({"ca_file": "/nowhere.pem"}, "/nowhere.pem"),
    ],
)
def test_a_node_does_not_start_with_a_binding_that_cannot_be_meant(
    small_world: NodeWorld, server: LlmServer, tls: ServerTls, change: dict[str, Any], hint: str
) -> None:
    environment = small_world.environment(llm_bindings=bindings(server, tls, **change))
    process = NodeProcess(small_world.installation, environment)
    process.launch()
    assert process.wait() != 0
    said = json.dumps(process.lines)
    assert hint in said, said
    assert "sk-123" not in said
