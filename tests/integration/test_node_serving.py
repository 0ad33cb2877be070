"""One real node without a control plane, and what services get from it: every refusal and every failure kind."""

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from agentfactory.agent.v1 import agent_pb2 as pb
from agentfactory.agent.v1 import agent_pb2_grpc
from agentfactory.node.v1 import node_pb2
from google.rpc import status_pb2  # type: ignore[import-untyped]  # it ships no stubs

from service.status import RemoteError, from_rpc_error
from templates.reasons import Reason
from tests.isolation import guests
from tests.node_process import NodeProcess, invoke
from tests.node_world import NodeWorld

KV = {"kv": {"namespace": "notes", "bytes_max": 400}}
SMALL = {"fuel": 50_000_000, "wall_ms": 3_000, "memory_bytes": 16 << 20, "output_bytes": 65_536, "log_bytes": 4_096}
Stub = agent_pb2_grpc.AgentServiceStub


def put(key: str, value: str, **more: object) -> str:
    return guests.ask(b"kv.put", json.dumps({"key": key, "value": value, **more}).encode())


def _sleep(delay_ns: int) -> str:
    """What `guests.sleeper` does before it writes: poll one clock."""
    return (
        "(i64.store (i32.const 600) (i64.const 7)) (i32.store8 (i32.const 608) (i32.const 0))"
        f"(i32.store (i32.const 616) (i32.const 1)) (i64.store (i32.const 624) (i64.const {delay_ns}))"
        "(drop (call $poll_oneoff (i32.const 600) (i32.const 700) (i32.const 1) (i32.const 800)))"
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> NodeWorld:
    world = NodeWorld.make(tmp_path_factory.mktemp("world"))
    everyone = ["*/*"]
    active = [
        world.command("docs/echo", guests.ECHO, limits={**SMALL, "input_bytes": 1_000}, callers=["docs/parent"]),
        world.command("docs/spinner", guests.SPINNER, limits=SMALL),
        world.command("docs/sleeper", guests.sleeper(60_000_000_000), limits=SMALL),
        world.command("docs/long_sleeper", guests.sleeper(60_000_000_000), limits={**SMALL, "wall_ms": 8_000}),
        world.command("docs/hog", guests.HOG, limits=SMALL),
        world.command("docs/flooder", guests.FLOODER, limits=SMALL),
        world.command("docs/hammerer", guests.HOST_HAMMERER, limits={**SMALL, "host_calls": 10}, grants=KV),
        world.command("docs/exit-seven", guests.EXIT_7, limits=SMALL),
        world.command("docs/unreachable", guests.UNREACHABLE, limits=SMALL),
        world.command("docs/logger", guests.say(2, b"one\ntwo \x1b[31m\n"), limits=SMALL),
        world.command("docs/slow-logger", guests.say(2, b"early\n", _sleep(1_500_000_000)), limits=SMALL),
        world.command("docs/binary", guests.say(1, b"\xff\xfe"), limits=SMALL),
        world.command(
            "docs/configured",
            guests.CONFIGURED,
            limits=SMALL,
            default_config={"depth": {"a": 1, "b": 2}, "name": "x"},
            config_schema={"type": "object", "properties": {"name": {"type": "string", "maxLength": 5}}},
            capabilities=["show"],
        ),
        world.command(
            "docs/typed",
            guests.ECHO,
            limits=SMALL,
            input_schema={"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}},
            output_schema={"type": "object", "properties": {"n": {"maximum": 10}}},
        ),
        world.command("docs/writer", put("k", "v"), limits=SMALL, grants=KV),
        world.command("docs/reader", guests.ask(b"kv.get", b'{"key":"k"}'), limits=SMALL, grants=KV),
        world.command("docs/counter", put("k", "v", expected=0), limits=SMALL, grants=KV),
        world.command("docs/glutton", put("k", "v" * 401), limits=SMALL, grants=KV),
        world.command(
            "docs/parent",
            guests.ask(b"agents.invoke", b'{"template":"docs/echo","input":"from above"}'),
            limits=SMALL,
            grants={"agents": ["docs/*"]},
            callers=everyone,
        ),
        world.command(
            "docs/stranger",
            guests.ask(b"agents.invoke", b'{"template":"docs/echo","input":"?"}'),
            limits=SMALL,
            grants={"agents": ["docs/*"]},
        ),
        world.command(
            "docs/overreach",
            guests.ask(b"agents.invoke", b'{"template":"docs/parent","input":"?"}'),
            limits=SMALL,
            grants={"agents": ["dev/*"]},
        ),
        world.command(
            "docs/endless",
            guests.ask(b"agents.invoke", b'{"template":"docs/endless","input":""}'),
            limits=SMALL,
            grants={"agents": ["docs/endless"]},
            callers=["docs/endless"],
        ),
        world.command(
            "docs/delegate",
            guests.ask(b"agents.invoke", b'{"template":"docs/spinner-child","input":""}'),
            limits={**SMALL, "fuel": 1_000_000},
            grants={"agents": ["docs/*"]},
        ),
        world.command("docs/spinner-child", guests.SPINNER, limits=SMALL, callers=everyone),
    ]
    world.publish(*active)
    world.seed()
    return world


@pytest.fixture(scope="module")
def node(world: NodeWorld) -> Iterator[NodeProcess]:
    with NodeProcess(world.installation, world.environment()) as process:
        yield process


@pytest.fixture
def acme(node: NodeProcess) -> Stub:
    return node.agents()


@pytest.fixture
def rival(node: NodeProcess) -> Stub:
    return node.agents("rival")


def refused(call: object, *arguments: object, **named: object) -> RemoteError:
    with pytest.raises(grpc.RpcError) as error:
        call(*arguments, timeout=30, **named)  # type: ignore[operator]
    return from_rpc_error(error.value)


def failed(stub: Stub, template: str, text: str = "", **limits: int) -> tuple[RemoteError, pb.Receipt]:
    """Return the error and the receipt in its details."""
    with pytest.raises(grpc.RpcError) as error:
        invoke(stub, template, text, **limits)
    call: Any = error.value
    sent = dict(call.trailing_metadata())
    status = status_pb2.Status.FromString(sent["grpc-status-details-bin"])
    receipt = pb.Receipt()
    assert any(each.Unpack(receipt) for each in status.details)
    return from_rpc_error(error.value), receipt


# Invocations


def test_an_answer_comes_with_a_receipt_of_digests_and_cost(world: NodeWorld, acme: Stub) -> None:
    answer = invoke(acme, "docs/echo", "héllo")
    assert answer.output == "héllo"
    receipt = answer.receipt
    assert (receipt.node, receipt.generation, receipt.template) == ("n1", 1, "docs/echo@1.0.0")
    assert receipt.caller == "spiffe://factory.test/tenant/acme/service/web"
    approved = next(each for ref, each in world.library.items() if str(ref) == "docs/echo@1.0.0")
    assert receipt.template_sha256 == approved.resolved.digest
    assert receipt.code_sha256 == next(iter(approved.blobs))
    assert receipt.usage.fuel > 0
    assert receipt.usage.wall.ToNanoseconds() >= receipt.usage.guest.ToNanoseconds() > 0
    assert (receipt.usage.input_bytes, receipt.usage.output_bytes) == (6, 6)


@pytest.mark.parametrize(
    ("template", "reason", "code"),
    [
        ("docs/spinner", Reason.FUEL, grpc.StatusCode.RESOURCE_EXHAUSTED),
        ("docs/sleeper", Reason.DEADLINE, grpc.StatusCode.DEADLINE_EXCEEDED),
        ("docs/hog", Reason.MEMORY, grpc.StatusCode.RESOURCE_EXHAUSTED),
        ("docs/flooder", Reason.OUTPUT, grpc.StatusCode.RESOURCE_EXHAUSTED),
        ("docs/hammerer", Reason.HOST_CALLS, grpc.StatusCode.RESOURCE_EXHAUSTED),
        ("docs/exit-seven", Reason.GUEST_ERROR, grpc.StatusCode.UNKNOWN),
        ("docs/unreachable", Reason.TRAP, grpc.StatusCode.UNKNOWN),
        ("docs/binary", Reason.OUTPUT, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_every_failure_kind_is_its_own_reason_and_comes_with_a_receipt(
    acme: Stub, template: str, reason: Reason, code: grpc.StatusCode
) -> None:
    error, receipt = failed(acme, template)
    assert (error.reason, error.code) == (reason, code)
    assert error.metadata["template"] == f"{template}@1.0.0"
    assert receipt.template == f"{template}@1.0.0"
    shown = acme.GetInvocation(pb.GetInvocationRequest(invocation_id=receipt.invocation_id), timeout=30)
    assert shown.outcome == str(reason)
    assert shown.message


def test_input_over_the_limit_is_refused_before_anything_runs(acme: Stub) -> None:
    error, receipt = failed(acme, "docs/echo", "x" * 1_001)
    assert (error.reason, error.code) == (Reason.INPUT, grpc.StatusCode.INVALID_ARGUMENT)
    assert receipt.usage.fuel == 0
    assert invoke(acme, "docs/echo", "x" * 1_000).output == "x" * 1_000


@pytest.mark.parametrize(
    ("text", "hint"),
    [("not json", "JSON"), ("{}", "n"), ('{"n": "x"}', "/n"), ('{"n": 1, "n": 2}', "twice"), ('{"n": NaN}', "NaN")],
)
def test_input_that_does_not_fit_its_schema_is_refused_with_its_place(acme: Stub, text: str, hint: str) -> None:
    error, receipt = failed(acme, "docs/typed", text)
    assert error.reason is Reason.INPUT
    assert hint in error.message
    assert receipt.usage.fuel == 0


def test_output_that_does_not_fit_its_schema_is_refused(acme: Stub) -> None:
    assert json.loads(invoke(acme, "docs/typed", '{"n": 7}').output) == {"n": 7}
    error, _ = failed(acme, "docs/typed", '{"n": 11}')
    assert error.reason is Reason.OUTPUT


def test_a_request_narrows_limits_and_never_widens_them(acme: Stub) -> None:
    error, _ = failed(acme, "docs/echo", "abc", output_bytes=2)
    assert error.reason is Reason.OUTPUT
    error, _ = failed(acme, "docs/sleeper", wall_ms=50)
    assert error.reason is Reason.DEADLINE
    error, receipt = failed(acme, "docs/spinner", fuel=10**15)
    assert error.reason is Reason.FUEL
    assert receipt.usage.fuel <= SMALL["fuel"] * 1.1


def test_the_rpc_deadline_narrows_wall_time_and_leaves_room_for_the_receipt(acme: Stub) -> None:
    reasons = set()
    for _ in range(5):  # the room is small: on a machine that is busy the caller's own clock may be the first
        with pytest.raises(grpc.RpcError) as error:
            acme.InvokeTemplate(pb.InvokeTemplateRequest(template="docs/sleeper"), timeout=0.5)
        remote = from_rpc_error(error.value)
        reasons.add((remote.reason, remote.code))
    assert (Reason.DEADLINE, grpc.StatusCode.DEADLINE_EXCEEDED) in reasons  # the node's own


def test_a_cancelled_rpc_stops_the_guest(node: NodeProcess, acme: Stub) -> None:
    future = acme.InvokeTemplate.future(pb.InvokeTemplateRequest(template="docs/long_sleeper"), timeout=30)
    node.until("an invocation in flight", lambda status: status.in_flight == 1)
    future.cancel()
    status = node.until("nothing in flight", lambda status: status.in_flight == 0)
    assert not any(each.in_flight for each in status.workers)
    newest = acme.ListInvocations(pb.ListInvocationsRequest(page_size=1), timeout=30).invocations[0]
    assert newest.outcome == "CANCELLED"


def test_an_unknown_template_is_answered_with_the_nearest_names(acme: Stub) -> None:
    error = refused(acme.InvokeTemplate, pb.InvokeTemplateRequest(template="docs/ecko"))
    assert (error.reason, error.code) == (Reason.UNKNOWN_TEMPLATE, grpc.StatusCode.NOT_FOUND)
    assert "docs/echo" in error.metadata["nearest"]
    error = refused(acme.InvokeTemplate, pb.InvokeTemplateRequest(template="docs/echo@9.9.9"))
    assert error.reason is Reason.UNKNOWN_TEMPLATE
    assert invoke(acme, "docs/echo@1.0.0", "x").output == "x"


def test_logs_are_kept_escaped_and_listed(acme: Stub) -> None:
    receipt = invoke(acme, "docs/logger").receipt
    shown = acme.GetInvocation(pb.GetInvocationRequest(invocation_id=receipt.invocation_id), timeout=30)
    text = "".join(line.message for line in shown.logs)
    assert "one" in text
    assert "two" in text
    assert "\x1b" not in text
    listed = acme.ListInvocations(pb.ListInvocationsRequest(template="docs/logger"), timeout=30).invocations
    assert [each.invocation_id for each in listed] == [receipt.invocation_id]
    assert not listed[0].logs


def test_log_lines_arrive_while_the_guest_runs(acme: Stub) -> None:
    request = pb.StreamInvokeRequest(template=pb.InvokeTemplateRequest(template="docs/slow-logger"))
    started = time.monotonic()
    events = acme.StreamInvoke(request, timeout=30)
    first = next(events)
    seen_s = time.monotonic() - started
    assert first.log.message == "early"
    (last,) = list(events)
    assert last.result.receipt.usage.wall.ToTimedelta().total_seconds() >= 1.5
    assert seen_s < last.result.receipt.usage.wall.ToTimedelta().total_seconds()


def test_log_lines_arrive_before_the_result(acme: Stub) -> None:
    request = pb.StreamInvokeRequest(template=pb.InvokeTemplateRequest(template="docs/logger"))
    events = list(acme.StreamInvoke(request, timeout=30))
    assert [each.WhichOneof("event") for each in events[:-1]] == ["log"] * (len(events) - 1)
    assert "one" in events[0].log.message
    assert events[-1].result.receipt.template == "docs/logger@1.0.0"


def test_a_streamed_failure_is_typed_too(acme: Stub) -> None:
    request = pb.StreamInvokeRequest(template=pb.InvokeTemplateRequest(template="docs/unreachable"))
    with pytest.raises(grpc.RpcError) as error:
        list(acme.StreamInvoke(request, timeout=30))
    assert from_rpc_error(error.value).reason is Reason.TRAP
    with pytest.raises(grpc.RpcError) as error:
        list(acme.StreamInvoke(pb.StreamInvokeRequest(), timeout=30))
    assert from_rpc_error(error.value).reason is Reason.INVALID_REQUEST


def test_pages_of_invocations_follow_each_other(acme: Stub) -> None:
    for _ in range(5):
        invoke(acme, "docs/echo", "p")
    first = acme.ListInvocations(pb.ListInvocationsRequest(page_size=2), timeout=30)
    request = pb.ListInvocationsRequest(page_size=2, page_token=first.next_page_token)
    second = acme.ListInvocations(request, timeout=30)
    ids = [each.invocation_id for page in (first, second) for each in page.invocations]
    assert ids == sorted(ids, reverse=True)
    assert len(set(ids)) == 4
    error = refused(acme.ListInvocations, pb.ListInvocationsRequest(page_token="\x00"))
    assert error.reason is Reason.INVALID_REQUEST


# Agents


def create(stub: Stub, template: str, agent_id: str = "", config: str = "", request_id: str = "") -> pb.Agent:
    request = pb.CreateAgentRequest(template=template, agent_id=agent_id, config=config, request_id=request_id)
    return stub.CreateAgent(request, timeout=30)


def run(stub: Stub, agent: pb.Agent, text: str = "") -> pb.InvokeResponse:
    return stub.InvokeAgent(pb.InvokeAgentRequest(name=agent.name, input=text), timeout=30)


def test_an_agent_runs_with_its_configuration_over_the_defaults(acme: Stub) -> None:
    agent = create(acme, "docs/configured", "mine", '{"depth": {"b": 3}, "name": "y"}')
    assert agent.name == "nodes/n1/agents/mine"
    assert (agent.template, agent.template_version, agent.tenant) == ("docs/configured", "1.0.0", "acme")
    assert list(agent.capabilities) == ["show"]
    effective = {"depth": {"a": 1, "b": 3}, "name": "y"}
    assert json.loads(agent.effective_config) == effective
    seen = run(acme, agent).output
    assert json.loads(seen.partition("=")[2]) == effective
    assert acme.GetAgent(pb.GetAgentRequest(name=agent.name), timeout=30) == agent


def test_a_configuration_that_does_not_fit_is_refused_with_its_place(acme: Stub) -> None:
    for config, reason, hint in [
        ('{"name": "toolong"}', Reason.CONFIG_MISMATCH, "/name"),
        ("[]", Reason.INVALID_REQUEST, "object"),
        ("{", Reason.INVALID_REQUEST, "JSON"),
        ('{"a": 1, "a": 2}', Reason.INVALID_REQUEST, "twice"),
        (f'{{"a": "{"x" * 70_000}"}}', Reason.INVALID_REQUEST, "bytes"),
    ]:
        error = refused(acme.CreateAgent, pb.CreateAgentRequest(template="docs/configured", config=config))
        assert (error.reason, error.code) == (reason, grpc.StatusCode.INVALID_ARGUMENT)
        assert hint in error.message


@pytest.mark.parametrize("agent_id", ["Upper", "-x", "a" * 64, "a/b", "ä", ".."])
def test_an_agent_id_outside_its_grammar_is_refused(acme: Stub, agent_id: str) -> None:
    error = refused(acme.CreateAgent, pb.CreateAgentRequest(template="docs/echo", agent_id=agent_id))
    assert error.reason is Reason.INVALID_REQUEST


def test_a_repeated_request_makes_one_agent(acme: Stub) -> None:
    first = create(acme, "docs/echo", request_id="r-1")
    assert create(acme, "docs/echo", request_id="r-1") == first
    error = refused(acme.CreateAgent, pb.CreateAgentRequest(template="docs/echo", config='{"x":1}', request_id="r-1"))
    assert error.reason is Reason.REQUEST_ID_REUSED
    error = refused(
        acme.CreateAgent, pb.CreateAgentRequest(template="docs/echo", agent_id=first.name.rpartition("/")[2])
    )
    assert (error.reason, error.code) == (Reason.AGENT_EXISTS, grpc.StatusCode.ALREADY_EXISTS)


def test_a_batch_makes_what_can_be_made(acme: Stub) -> None:
    requests = [
        pb.CreateAgentRequest(template="docs/echo"),
        pb.CreateAgentRequest(template="docs/none"),
        pb.CreateAgentRequest(template="docs/configured", config='{"name": "toolong"}'),
        pb.CreateAgentRequest(template="docs/echo"),
    ]
    results = acme.BatchCreateAgents(pb.BatchCreateAgentsRequest(requests=requests), timeout=30).results
    assert [each.WhichOneof("result") for each in results] == ["agent", "problem", "problem", "agent"]
    assert results[1].problem.reason == "UNKNOWN_TEMPLATE"
    assert results[2].problem.reason == "CONFIG_MISMATCH"
    assert refused(acme.BatchCreateAgents, pb.BatchCreateAgentsRequest()).reason is Reason.INVALID_REQUEST
    many = pb.BatchCreateAgentsRequest(requests=[requests[0]] * 1_001)
    assert refused(acme.BatchCreateAgents, many).reason is Reason.INVALID_REQUEST


def test_agents_are_listed_in_pages_and_deleted(rival: Stub) -> None:
    names = {create(rival, "docs/echo", f"list-{number}").name for number in range(5)}
    other = create(rival, "docs/logger", "list-other").name
    first = rival.ListAgents(pb.ListAgentsRequest(page_size=3, template="docs/echo"), timeout=30)
    token = first.next_page_token
    second = rival.ListAgents(pb.ListAgentsRequest(page_size=3, template="docs/echo", page_token=token), timeout=30)
    assert {each.name for each in (*first.agents, *second.agents)} == names
    assert not second.next_page_token
    rival.DeleteAgent(pb.DeleteAgentRequest(name=other), timeout=30)
    assert refused(rival.GetAgent, pb.GetAgentRequest(name=other)).reason is Reason.UNKNOWN_AGENT
    assert refused(rival.DeleteAgent, pb.DeleteAgentRequest(name=other)).reason is Reason.UNKNOWN_AGENT
    assert refused(rival.InvokeAgent, pb.InvokeAgentRequest(name=other)).reason is Reason.UNKNOWN_AGENT


def test_another_nodes_agent_is_answered_with_its_home(acme: Stub) -> None:
    error = refused(acme.InvokeAgent, pb.InvokeAgentRequest(name="nodes/n2/agents/x"))
    assert (error.reason, error.code) == (Reason.WRONG_NODE, grpc.StatusCode.FAILED_PRECONDITION)
    assert error.metadata["node"] == "n2"


def test_what_belongs_to_another_tenant_does_not_exist(acme: Stub, rival: Stub) -> None:
    agent = create(acme, "docs/echo", "secret")
    receipt = run(acme, agent, "x").receipt
    for call, request in [
        (rival.GetAgent, pb.GetAgentRequest(name=agent.name)),
        (rival.InvokeAgent, pb.InvokeAgentRequest(name=agent.name)),
        (rival.DeleteAgent, pb.DeleteAgentRequest(name=agent.name)),
    ]:
        assert refused(call, request).reason is Reason.UNKNOWN_AGENT
    request = pb.GetInvocationRequest(invocation_id=receipt.invocation_id)
    assert refused(rival.GetInvocation, request).reason is Reason.UNKNOWN_INVOCATION
    theirs = rival.ListInvocations(pb.ListInvocationsRequest(page_size=1000), timeout=30).invocations
    assert receipt.invocation_id not in {each.invocation_id for each in theirs}


# Key-value state


def asked(answer: pb.InvokeResponse) -> dict[str, object]:
    value: dict[str, object] = json.loads(answer.output)
    return value


def test_state_is_kept_per_agent_and_per_tenant(acme: Stub, rival: Stub) -> None:
    writer, twin = create(acme, "docs/counter"), create(acme, "docs/counter")
    assert "ok" in asked(run(acme, writer))
    assert asked(run(acme, writer))["error"]["kind"] == "conflict"  # type: ignore[index]
    assert "ok" in asked(run(acme, twin))
    assert "ok" in asked(invoke(acme, "docs/counter"))
    assert asked(invoke(acme, "docs/counter"))["error"]["kind"] == "conflict"  # type: ignore[index]
    assert "ok" in asked(invoke(rival, "docs/counter"))


def test_templates_do_not_read_each_others_state(acme: Stub) -> None:
    assert "ok" in asked(invoke(acme, "docs/writer"))
    assert asked(invoke(acme, "docs/reader")) == {"ok": None}


def test_the_quota_is_an_answer_to_the_guest(acme: Stub) -> None:
    assert asked(invoke(acme, "docs/glutton"))["error"]["kind"] == "quota"  # type: ignore[index]


# Agents calling agents


def test_a_parent_gets_its_childs_answer_and_both_are_recorded(acme: Stub) -> None:
    answer = invoke(acme, "docs/parent")
    assert asked(answer) == {"ok": {"output": "from above"}}
    assert answer.receipt.usage.child_invocations == 1
    children = acme.ListInvocations(pb.ListInvocationsRequest(template="docs/echo"), timeout=30).invocations
    assert answer.receipt.invocation_id in {each.parent_invocation_id for each in children}


@pytest.mark.parametrize(
    ("template", "kind"),
    [
        ("docs/stranger", "denied"),
        ("docs/overreach", "denied"),
        ("docs/endless", "budget"),
        ("docs/delegate", "failed"),
    ],
)
def test_what_an_agent_may_not_ask_of_another_is_an_answer(acme: Stub, template: str, kind: str) -> None:
    answer = invoke(acme, template)
    innermost: object = asked(answer)
    while isinstance(innermost, dict) and "ok" in innermost:
        innermost = json.loads(innermost["ok"]["output"])
    assert innermost["error"]["kind"] == kind  # type: ignore[index]


def test_a_childs_fuel_is_its_callers(acme: Stub) -> None:
    invoke(acme, "docs/delegate")
    listed = acme.ListInvocations(pb.ListInvocationsRequest(template="docs/spinner-child"), timeout=30).invocations
    assert listed[0].outcome == "FUEL"
    assert listed[0].receipt.usage.fuel <= 1_100_000


# The node itself


def test_templates_are_listed_with_what_they_may_use(acme: Stub) -> None:
    page = acme.ListTemplates(pb.ListTemplatesRequest(page_size=3), timeout=30)
    assert page.generation == 1
    assert [each.template for each in page.templates] == [
        "docs/binary@1.0.0",
        "docs/configured@1.0.0",
        "docs/counter@1.0.0",
    ]
    configured = page.templates[1]
    assert json.loads(configured.default_config) == {"depth": {"a": 1, "b": 2}, "name": "x"}
    assert configured.limits.wall_ms == SMALL["wall_ms"]
    rest = acme.ListTemplates(pb.ListTemplatesRequest(page_token=page.next_page_token), timeout=30)
    assert rest.templates[0].template == "docs/delegate@1.0.0"


def test_only_services_use_agents_and_only_persons_operate(node: NodeProcess) -> None:
    person = agent_pb2_grpc.AgentServiceStub(node.channel(node.installation.person("alice")))
    assert refused(person.ListTemplates, pb.ListTemplatesRequest()).code is grpc.StatusCode.PERMISSION_DENIED
    service = node.channel(node.installation.service("web"))
    status = service.unary_unary(
        "/agentfactory.node.v1.NodeService/GetNodeStatus",
        request_serializer=node_pb2.GetNodeStatusRequest.SerializeToString,
        response_deserializer=node_pb2.NodeStatus.FromString,
    )
    assert refused(status, node_pb2.GetNodeStatusRequest()).code is grpc.StatusCode.PERMISSION_DENIED


def test_a_killed_worker_is_replaced_and_only_its_own_invocations_fail(
    node: NodeProcess, acme: Stub, rival: Stub
) -> None:
    invoke(rival, "docs/echo", "x")
    invoke(acme, "docs/echo", "x")
    with ThreadPoolExecutor(2) as threads:
        victim = threads.submit(failed, acme, "docs/long_sleeper")
        status = node.until("an invocation in flight", lambda status: status.in_flight == 1)
        pids = {each.tenant: each.pid for each in status.workers}
        neighbour = threads.submit(failed, rival, "docs/long_sleeper")
        node.until("two in flight", lambda status: status.in_flight == 2)
        os.kill(pids["acme"], signal.SIGKILL)
        error, receipt = victim.result()
        assert (error.reason, error.code) == (Reason.CRASH, grpc.StatusCode.UNAVAILABLE)
        assert receipt.template == "docs/long_sleeper@1.0.0"
        assert invoke(acme, "docs/echo", "again").output == "again"
        assert neighbour.result()[0].reason is Reason.DEADLINE
    replaced = {each.tenant: each.pid for each in node.status().workers}
    assert replaced["acme"] != pids["acme"]
    assert replaced["rival"] == pids["rival"]


def test_the_observer_tells_health_readiness_and_metrics(node: NodeProcess) -> None:
    assert node.observed("/healthz")[0] == 200
    code, facts = node.observed("/readyz")
    assert code == 200
    assert json.loads(facts)["generation"] == 1
    metrics = node.observed("/metrics")[1].decode()
    assert 'agentfactory_invocations_total{failure="",template="docs/echo"}' in metrics
    assert "agentfactory_workers" in metrics


def test_a_spinning_neighbour_does_not_stop_the_others(node: NodeProcess, acme: Stub, rival: Stub) -> None:
    with ThreadPoolExecutor(4) as threads:
        spinning = [threads.submit(failed, rival, "docs/spinner") for _ in range(3)]
        for _ in range(20):
            assert invoke(acme, "docs/echo", "x").output == "x"
        assert all(each.result()[0].reason is Reason.FUEL for each in spinning)


def test_drain_refuses_new_work_finishes_what_runs_and_the_process_ends(world: NodeWorld, tmp_path: Path) -> None:
    world.seed("n2")
    with NodeProcess(world.installation, world.environment("n2")) as node, ThreadPoolExecutor(1) as threads:
        stub = node.agents()
        agent = create(stub, "docs/echo", "kept")
        running = threads.submit(failed, stub, "docs/long_sleeper")
        node.until("an invocation in flight", lambda status: status.in_flight == 1)
        assert refused(node.operator("mallory").Drain, node_pb2.DrainRequest()).reason is Reason.PERMISSION_DENIED
        drained = node.operator().Drain(node_pb2.DrainRequest(), timeout=2)
        assert drained.unfinished == 1
        assert node.status().state == node_pb2.NODE_STATE_DRAINING
        assert node.observed("/readyz")[0] == 503
        error = refused(stub.InvokeAgent, pb.InvokeAgentRequest(name=agent.name))
        assert (error.reason, error.code) == (Reason.SERVER_DRAINING, grpc.StatusCode.UNAVAILABLE)
        assert refused(stub.CreateAgent, pb.CreateAgentRequest(template="docs/echo")).reason is Reason.SERVER_DRAINING
        assert running.result()[0].reason is Reason.DEADLINE
        assert node.operator().Drain(node_pb2.DrainRequest(), timeout=30).unfinished == 0
        assert node.stop() == 0


def test_sigterm_lets_running_invocations_finish(world: NodeWorld) -> None:
    world.seed("n3")
    with NodeProcess(world.installation, world.environment("n3")) as node, ThreadPoolExecutor(1) as threads:
        stub = node.agents()
        running = threads.submit(failed, stub, "docs/sleeper")
        node.until("an invocation in flight", lambda status: status.in_flight == 1)
        assert node.process is not None
        started = time.monotonic()
        node.process.send_signal(signal.SIGTERM)
        assert running.result()[0].reason is Reason.DEADLINE
        assert node.wait() == 0
        assert time.monotonic() - started < 20


def test_tenants_use_only_what_the_operator_gave_them(world: NodeWorld) -> None:
    world.seed("n4")
    settings = {"tenant_templates": '{"acme": ["docs/echo"]}'}
    with NodeProcess(world.installation, world.environment("n4", **settings)) as node:
        acme, rival = node.agents(), node.agents("rival")
        assert invoke(acme, "docs/echo", "x").output == "x"
        listed = acme.ListTemplates(pb.ListTemplatesRequest(), timeout=30).templates
        assert [each.template for each in listed] == ["docs/echo@1.0.0"]
        error = refused(acme.InvokeTemplate, pb.InvokeTemplateRequest(template="docs/logger"))
        assert error.reason is Reason.UNKNOWN_TEMPLATE
        assert "docs/logger" not in error.metadata["nearest"]
        misspelled = refused(acme.InvokeTemplate, pb.InvokeTemplateRequest(template="docs/logge"))
        assert "docs/logger" not in misspelled.message + misspelled.metadata["nearest"]
        missing = refused(rival.CreateAgent, pb.CreateAgentRequest(template="docs/echos"))
        assert missing.metadata["nearest"] == ""
        assert refused(rival.InvokeTemplate, pb.InvokeTemplateRequest(template="docs/echo")).reason is (
            Reason.UNKNOWN_TEMPLATE
        )
