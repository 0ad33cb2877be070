"""A real node records a CPython agent that reads time and chance, keeps state and asks another agent; then a replay."""

import json
import time
from collections.abc import Iterator
from textwrap import dedent

import grpc
import pytest
from agentfactory.agent.v1 import agent_pb2 as pb
from agentfactory.agent.v1 import agent_pb2_grpc

from client import replay
from sandbox.outcome import FailureKind
from sandbox.recording import CUT_CALLS, Recording, read
from service.status import RemoteError, from_rpc_error
from templates.reasons import Reason
from tests.images import compiled_image
from tests.isolation import guests
from tests.node_process import CALL_TIMEOUT_S, NodeProcess
from tests.node_world import NodeWorld

Stub = agent_pb2_grpc.AgentServiceStub
LIMITS = {"fuel": 2_000_000_000, "wall_ms": 10_000, "memory_bytes": 134_217_728}
SOURCE = """
    import random, time, uuid
    from agentfactory_sdk import agents, kv, log

    def process(text):
        began = time.monotonic()
        kv.put("when", str(time.time()))
        time.sleep(0.2)
        drawn = [random.random(), random.randint(0, 10**9), str(uuid.uuid4())]
        below = agents.invoke("docs/echo", f"{text} {drawn[1]}")
        log.info("asked")
        kept = kv.get("when")
        return repr((drawn, below, kept.value, time.monotonic() - began, time.time()))
"""
LOUD = """
    from agentfactory_sdk import kv

    def process(text):
        for index in range(40):
            kv.put(f"k{index}", "v" * 2000)
            kv.get(f"k{index}")
        return "done"
"""
BOUND = """
    from agentfactory_sdk import agents

    def process(text):
        try:
            agents.invoke("docs/burner", "")
        except Exception as error:
            print(error)
        while True:
            pass
"""
WAITING = """
    import time
    from agentfactory_sdk import kv, log

    def process(text):
        kv.put("when", str(time.time()))
        log.info("begun")
        time.sleep(60)
        log.info("never")
"""
SLOW = "import time\n\ndef process(text):\n    time.sleep(60)\n    return text"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> NodeWorld:
    world = NodeWorld.make(tmp_path_factory.mktemp("world"))
    kv = {"kv": {"namespace": "notes", "bytes_max": 1_000_000}}
    world.publish(
        world.command("docs/echo", guests.ECHO, limits={"wall_ms": 3_000}, callers=["docs/*"]),
        world.source("docs/everything", dedent(SOURCE), limits=LIMITS, grants={**kv, "agents": ["docs/echo"]}),
        world.source("docs/loud", dedent(LOUD), limits=LIMITS, grants=kv),
        world.command("docs/burner", guests.SPINNER, limits={"fuel": 400_000_000}, callers=["docs/*"]),
        world.source(
            "docs/bound", dedent(BOUND), limits={**LIMITS, "fuel": 700_000_000}, grants={"agents": ["docs/*"]}
        ),
        world.source("docs/waiting", dedent(WAITING), limits={**LIMITS, "wall_ms": 60_000}, grants=kv),
        world.source("docs/slow", SLOW, limits={**LIMITS, "wall_ms": 800}),
    )
    world.seed()
    return world


@pytest.fixture(scope="module")
def node(world: NodeWorld) -> Iterator[NodeProcess]:
    settings = {"recording_templates": json.dumps({"acme": ["docs/*"]}), "recording_bytes_max": "131072"}
    with NodeProcess(world.installation, world.environment(**settings)) as process:
        yield process


@pytest.fixture
def acme(node: NodeProcess) -> Stub:
    return node.agents()


def ask(stub: Stub, template: str, text: str = "") -> pb.InvokeResponse:
    request = pb.InvokeTemplateRequest(template=template, input=text, record=True)
    return stub.InvokeTemplate(request, timeout=CALL_TIMEOUT_S)


def refused(stub: Stub, template: str, text: str = "") -> RemoteError:
    with pytest.raises(grpc.RpcError) as error:
        ask(stub, template, text)
    return from_rpc_error(error.value)


def listed(stub: Stub) -> list[pb.RecordingSummary]:
    return list(stub.ListRecordings(pb.ListRecordingsRequest(), timeout=CALL_TIMEOUT_S).recordings)


def fetch(stub: Stub, invocation_id: str) -> Recording:
    pieces = stub.GetRecording(pb.GetRecordingRequest(invocation_id=invocation_id), timeout=CALL_TIMEOUT_S)
    return read(b"".join(piece.data for piece in pieces))


def test_what_a_node_recorded_is_replayed_without_it(acme: Stub) -> None:
    answers = [ask(acme, "docs/everything", "hello") for _ in range(2)]
    assert answers[0].output != answers[1].output
    for answer in answers:
        recording = fetch(acme, answer.receipt.invocation_id)
        assert recording.provenance.template == "docs/everything@1.0.0"
        assert [call.name for call in recording.calls] == ["kv.put", "agents.invoke", "kv.get"]
        assert recording.cut == frozenset()
        assert recording.end.fuel == answer.receipt.usage.fuel
        assert len(recording.tape) < 400
        found = replay.run(recording, compiled_image())
        assert found.differences == ()
        assert found.fuel_is_compared
        assert found.outcome is not None
        assert (found.outcome.output or b"").decode() == answer.output
        assert found.outcome.usage.fuel == answer.receipt.usage.fuel
        assert found.outcome.usage.wall_us < 3_000_000


def test_a_streamed_invocation_and_an_agents_are_recorded_too(acme: Stub) -> None:
    request = pb.StreamInvokeRequest(template=pb.InvokeTemplateRequest(template="docs/everything", record=True))
    *_, last = acme.StreamInvoke(request, timeout=CALL_TIMEOUT_S)
    assert replay.run(fetch(acme, last.result.receipt.invocation_id), compiled_image()).is_identical
    agent = acme.CreateAgent(pb.CreateAgentRequest(template="docs/everything"), timeout=CALL_TIMEOUT_S)
    answer = acme.InvokeAgent(pb.InvokeAgentRequest(name=agent.name, input="x", record=True), timeout=CALL_TIMEOUT_S)
    recording = fetch(acme, answer.receipt.invocation_id)
    assert recording.provenance.agent
    assert replay.run(recording, compiled_image()).is_identical


def test_invocations_say_whether_there_is_a_recording_and_children_have_none(acme: Stub) -> None:
    answer = ask(acme, "docs/everything")
    listed = acme.ListInvocations(pb.ListInvocationsRequest(page_size=2), timeout=CALL_TIMEOUT_S).invocations
    by_id = {each.invocation_id: each for each in listed}
    assert by_id[answer.receipt.invocation_id].has_recording
    (child,) = [each for each in listed if each.parent_invocation_id == answer.receipt.invocation_id]
    assert not child.has_recording
    one = acme.GetInvocation(
        pb.GetInvocationRequest(invocation_id=answer.receipt.invocation_id), timeout=CALL_TIMEOUT_S
    )
    assert one.has_recording


def test_another_tenant_may_neither_record_nor_fetch(node: NodeProcess, acme: Stub) -> None:
    rival = node.agents("rival")
    assert refused(rival, "docs/everything").reason is Reason.RECORDING_NOT_ALLOWED
    answer = ask(acme, "docs/everything")
    for stub, invocation_id in ((rival, answer.receipt.invocation_id), (acme, "0123"), (acme, "../../x"), (acme, "")):
        with pytest.raises(grpc.RpcError) as error:
            fetch(stub, invocation_id)
        assert from_rpc_error(error.value).reason is Reason.UNKNOWN_RECORDING


def test_a_recording_that_was_cut_says_so_and_is_followed_up_to_there(acme: Stub) -> None:
    recording = fetch(acme, ask(acme, "docs/loud").receipt.invocation_id)
    assert recording.cut == {CUT_CALLS}
    found = replay.run(recording, compiled_image())
    assert found.is_identical
    assert found.ended_early
    assert 0 < found.calls < 80


def test_an_input_that_does_not_fit_a_recording_is_refused(acme: Stub) -> None:
    assert refused(acme, "docs/slow", "x" * 131_072).reason is Reason.RECORDING_TOO_LARGE


def test_fuel_that_others_burned_is_taken_in_a_replay_too(acme: Stub) -> None:
    error = refused(acme, "docs/bound")
    assert error.reason is Reason.FUEL
    recording = fetch(acme, error.metadata["invocation"])
    assert [call.fuel for call in recording.calls] == [400_000_000]
    assert recording.end.fuel <= 300_000_000
    found = replay.run(recording, compiled_image())
    assert found.differences == ()
    assert found.outcome is not None
    assert found.outcome.usage.fuel == recording.end.fuel


def test_a_failure_is_recorded(acme: Stub) -> None:
    error = refused(acme, "docs/slow")
    assert error.reason is Reason.DEADLINE
    recording = fetch(acme, error.metadata["invocation"])
    assert recording.end.kind is FailureKind.DEADLINE
    found = replay.run(recording, compiled_image())
    assert found.is_identical
    assert found.ended_early


def test_an_invocation_that_its_caller_cancels_leaves_a_recording_that_can_be_followed(
    node: NodeProcess, acme: Stub
) -> None:
    known = {each.invocation_id for each in listed(acme)}
    request = pb.StreamInvokeRequest(template=pb.InvokeTemplateRequest(template="docs/waiting", record=True))
    stream = acme.StreamInvoke(request, timeout=CALL_TIMEOUT_S)
    assert next(stream).log.message == "begun"
    stream.cancel()
    deadline = time.monotonic() + CALL_TIMEOUT_S
    while not (found := [each for each in listed(acme) if each.invocation_id not in known]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (summary,) = found
    assert (summary.template, summary.outcome, summary.node) == ("docs/waiting@1.0.0", "CANCELLED", "n1")
    recording = fetch(acme, summary.invocation_id)
    assert recording.end.kind is FailureKind.CANCELLED
    assert [call.name for call in recording.calls] == ["kv.put"]
    assert recording.cut == frozenset()
    assert recording.end.logs is not None
    assert [line.message for line in recording.end.logs] == ["begun"]
    assert recording.end.fuel > 0
    replayed = replay.run(recording, compiled_image())
    assert replayed.differences == ()
    assert (replayed.ended_early, replayed.calls) == (True, 1)
    status, page = node.observed("/metrics")
    assert status == 200
    assert b'agentfactory_recordings_total{result="written"}' in page


def test_a_tenant_lists_and_deletes_its_own_recordings(node: NodeProcess, acme: Stub) -> None:
    ids = [ask(acme, "docs/everything").receipt.invocation_id for _ in range(3)]
    first = acme.ListRecordings(pb.ListRecordingsRequest(page_size=2), timeout=CALL_TIMEOUT_S)
    assert [each.invocation_id for each in first.recordings] == [ids[2], ids[1]]
    rest = acme.ListRecordings(
        pb.ListRecordingsRequest(page_size=2, page_token=first.next_page_token), timeout=CALL_TIMEOUT_S
    )
    assert rest.recordings[0].invocation_id == ids[0]
    kept = first.recordings[0]
    assert (kept.template, kept.outcome) == ("docs/everything@1.0.0", "OK")
    assert kept.expire_time.seconds - kept.create_time.seconds == 7 * 86_400
    assert kept.size_bytes > 500

    rival = node.agents("rival")
    assert listed(rival) == []
    for stub, invocation_id in ((rival, ids[0]), (acme, "0123"), (acme, ""), (acme, "../" + ids[0])):
        with pytest.raises(grpc.RpcError) as error:
            stub.DeleteRecording(pb.DeleteRecordingRequest(invocation_id=invocation_id), timeout=CALL_TIMEOUT_S)
        assert from_rpc_error(error.value).reason is Reason.UNKNOWN_RECORDING
    acme.DeleteRecording(pb.DeleteRecordingRequest(invocation_id=ids[1]), timeout=CALL_TIMEOUT_S)
    assert [each.invocation_id for each in listed(acme)][:2] == [ids[2], ids[0]]
    with pytest.raises(grpc.RpcError) as error:
        fetch(acme, ids[1])
    assert from_rpc_error(error.value).reason is Reason.UNKNOWN_RECORDING
    request = pb.GetInvocationRequest(invocation_id=ids[1])
    assert not acme.GetInvocation(request, timeout=CALL_TIMEOUT_S).has_recording


def test_a_flipped_byte_at_rest_is_a_typed_error_and_a_restart_keeps_the_rest(
    world: NodeWorld, node: NodeProcess
) -> None:
    stub = node.agents()
    damaged, kept = (ask(stub, "docs/everything").receipt.invocation_id for _ in range(2))
    (path,) = (world.store("n1") / "recordings").rglob(f"{damaged}.recording")
    assert path.stat().st_mode & 0o777 == 0o600
    content = bytearray(path.read_bytes())
    assert b"docs/everything" not in content
    content[-40] ^= 1
    path.write_bytes(content)
    node.kill()
    node.start()
    stub = node.agents()
    with pytest.raises(grpc.RpcError) as error:
        fetch(stub, damaged)
    assert from_rpc_error(error.value).reason is Reason.RECORDING_DAMAGED
    assert replay.run(fetch(stub, kept), compiled_image()).is_identical
