"""One trace from a person's command through both planes into the sandbox, as a collector sees it; metrics beside it."""

import json
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from agentfactory.agent.v1 import agent_pb2_grpc

from sandbox.engine import wat2wasm
from service.client_interceptors import RetryPolicy, intercept_channel
from service.metric_name import MetricName
from service.telemetry import METRICS, ServiceName, SpanName, continued
from tests.control_plane_process import ControlPlaneProcess, PersonClient
from tests.isolation import guests
from tests.node_process import NodeProcess, invoke
from tests.node_world import NodeWorld
from tests.otlp_collector import Collected, CollectedSpan, collecting, points

ROOT = Path(__file__).parents[2]
LIMITS = {"fuel": 50_000_000, "wall_ms": 10_000, "memory_bytes": 16 << 20}
ASKS_ECHO = guests.ask(b"agents.invoke", b'{"template":"dev/echo","input":"from above"}')
ALWAYS = ("process_resident_memory_bytes", "process_start_time_seconds")
NOT_IN_AN_ORDINARY_RUN = {
    "agentfactory_audit_failures_total",
    "agentfactory_audit_forks",
    "agentfactory_break_glass_total",
    "agentfactory_http_bytes_total",
    "agentfactory_http_requests_total",
    "agentfactory_llm_calls_total",
    "agentfactory_llm_cost_usd_total",
    "agentfactory_llm_tokens_total",
    "agentfactory_recording_bytes_total",
    "agentfactory_recordings_kept_bytes",
    "agentfactory_recordings_total",
    "agentfactory_task_failures_total",
    "agentfactory_worker_exits_total",
    "agentfactory_invocations_in_flight",
    "agentfactory_rpc_server_in_flight",
}


BOTH_COUNTED = 'agentfactory_invocations_total{failure="",template="dev/parent"} 2.0'


def trace(number: int, *, sampled: bool = True) -> str:
    """Return the context of an imagined client's span."""
    return f"00-{number:032x}-{0xC11E47:016x}-{'01' if sampled else '00'}"


SUBMIT, APPROVE, INVOKE, FAIL, UNSAMPLED, REFUSE = range(0xA1, 0xA7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What the collector has after everything ended, and what the processes said meanwhile.

    ``generation`` is the last one that the node took; it refused the one after it.
    """

    collected: Collected
    scraped: dict[ServiceName, str]
    lines: dict[ServiceName, list[dict[str, object]]]
    generation: int
    receipt_wall_s: float
    receipt_guest_s: float


def document(name: str, version: str = "1.0.0", **members: object) -> dict[str, object]:
    base = {"schema": 1, "domain": "dev", "name": name, "version": version, "role": "r", "description": "d"}
    return {**base, "limits": LIMITS, "code": {"module": "agent.wasm", "abi": "command"}, **members}


def publish(alice: PersonClient, node: NodeProcess, wat: str, described: dict[str, object]) -> int:
    """Submit in one trace, approve in another, and wait for the node; return the generation."""
    with continued(trace(SUBMIT)):
        change = alice.submit(described, wat2wasm(wat))
    with continued(trace(APPROVE)):
        generation = alice.approve(change, node.installation, "alice").generation
    node.until("the new generation", lambda status: status.generation == generation)
    return generation


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read(), "utf-8")


def scraped_with(line: str, port: int) -> str:
    """Return the page once it holds this line: metrics lag a moment behind what they count."""
    for _ in range(500):
        if f"\n{line}\n" in (text := scrape(port)):
            return text
        time.sleep(0.02)
    raise AssertionError(f"expected {line}")


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    world = NodeWorld.make(tmp_path_factory.mktemp("telemetry") / "installation")
    installation = world.installation
    with collecting() as collected:
        settings = {"otlp_endpoint": collected.endpoint, "debounce_ms": "10", "lease_renewal_s": "3600"}
        with ControlPlaneProcess(installation, settings) as plane:
            environment = world.environment(
                "n1", control_plane=f"localhost:{plane.port}", otlp_endpoint=collected.endpoint
            )
            with NodeProcess(installation, environment) as node:
                node.until("a connected node", lambda status: status.generation >= 1)
                channel = intercept_channel(plane.channel(installation.person("alice")), RetryPolicy())
                with PersonClient(channel) as alice:
                    publish(alice, node, guests.ECHO, document("echo", callers=["dev/parent"]))
                    publish(alice, node, guests.SPINNER, document("spinner"))
                    generation = publish(alice, node, ASKS_ECHO, document("parent", grants={"agents": ["dev/echo"]}))
                    with continued(trace(REFUSE)):
                        stuck = wat2wasm(guests.START_SPINNER)
                        alice.publish(installation, document("stuck"), stuck, by=["alice"])
                    node.until("a refusal", lambda status: status.HasField("last_refusal"))

                service = intercept_channel(node.channel(installation.service("web")), RetryPolicy())
                agents = agent_pb2_grpc.AgentServiceStub(service)
                with continued(trace(INVOKE)):
                    answer = invoke(agents, "dev/parent")
                assert json.loads(answer.output) == {"ok": {"output": "from above"}}
                with continued(trace(FAIL)), pytest.raises(Exception, match="fuel"):
                    invoke(agents, "dev/spinner", fuel=1_000_000)
                with continued(trace(UNSAMPLED, sampled=False)):
                    invoke(agents, "dev/parent")
                scraped = {
                    ServiceName.CONTROL_PLANE: scrape(plane.observation_port),
                    ServiceName.NODE: scraped_with(BOTH_COUNTED, node.observation_port),
                }
                assert node.stop() == 0
            assert plane.stop() == 0
        yield Story(
            collected=collected,
            scraped=scraped,
            lines={ServiceName.CONTROL_PLANE: plane.lines, ServiceName.NODE: node.lines},
            generation=generation,
            receipt_wall_s=answer.receipt.usage.wall.ToMicroseconds() / 1e6,
            receipt_guest_s=answer.receipt.usage.guest.ToMicroseconds() / 1e6,
        )


def names(spans: list[CollectedSpan]) -> list[str]:
    return [each.name for each in spans]


def in_trace(story: Story, number: int) -> list[CollectedSpan]:
    return [each for each in story.collected.spans if each.trace_id == f"{number:032x}"]


# Submit, approve, push, activate


def test_a_submission_hangs_below_the_clients_span(story: Story) -> None:
    calls = [each for each in in_trace(story, SUBMIT) if each.name == SpanName.RPC_SERVER]
    assert len(calls) == 3
    for call in calls:
        assert call.parent_id == f"{0xC11E47:016x}"
        assert (call.service, call.instance, call.kind) == (ServiceName.CONTROL_PLANE, "one", "SERVER")
        assert call.attributes["method"] == "/agentfactory.admin.v1.TemplateService/SubmitTemplate"
        assert call.attributes["peer"] == "spiffe://factory.test/person/alice"
        (submit,) = story.collected.below(call)
        assert submit.name == SpanName.CHANGE_SUBMIT
        assert names(story.collected.below(submit)) == [SpanName.MODULE_INSPECT]


def test_an_approval_leads_through_publication_and_push_to_the_swap_on_the_node(story: Story) -> None:
    collected = story.collected
    activate = collected.one(SpanName.UPDATE_ACTIVATE, generation=story.generation)
    assert collected.path(activate) == [
        SpanName.RPC_SERVER,
        SpanName.CHANGE_APPROVE,
        SpanName.PUBLISH,
        SpanName.PUSH,
        SpanName.UPDATE,
        SpanName.UPDATE_ACTIVATE,
    ]
    assert activate.trace_id == f"{APPROVE:032x}"
    update = collected.parent(activate)
    assert update is not None
    assert (update.service, update.instance, update.kind) == (ServiceName.NODE, "n1", "CONSUMER")
    assert names(collected.below(update)) == [
        SpanName.UPDATE_VERIFY,
        SpanName.UPDATE_STAGE,
        SpanName.UPDATE_ACTIVATE,
    ]
    assert all(update.contains(each) for each in collected.below(update))
    push = collected.parent(update)
    assert push is not None
    assert (push.service, push.kind) == (ServiceName.CONTROL_PLANE, "PRODUCER")
    assert push.attributes == {"node": "n1", "generation": story.generation, "stage": "ACTIVE"}
    assert push.contains(update)
    assert not push.failed


def test_staging_fetches_inspects_and_compiles_within_its_span(story: Story) -> None:
    stage = story.collected.one(SpanName.UPDATE_STAGE, generation=story.generation)
    below = story.collected.below(stage)
    assert sorted(names(below)) == [SpanName.MODULE_COMPILE, SpanName.MODULE_INSPECT, SpanName.RPC_SERVER]
    fetch = next(each for each in below if each.name == SpanName.RPC_SERVER)
    assert fetch.service == ServiceName.CONTROL_PLANE
    assert fetch.attributes["method"] == "/agentfactory.distribution.v1.DistributionService/FetchBlobs"
    assert all(stage.contains(each) for each in below)


def test_a_refused_generation_shows_where_and_why_on_both_planes(story: Story) -> None:
    stage = story.collected.one(SpanName.UPDATE_STAGE, generation=story.generation + 1)
    update = story.collected.parent(stage)
    push = story.collected.one(SpanName.PUSH, generation=story.generation + 1)
    assert update is not None
    assert update.parent_id == push.span_id
    assert stage.trace_id == f"{REFUSE:032x}"
    assert (push.failed, push.message, push.attributes["stage"]) == (True, "DRY_RUN_FAILED", "VERIFIED")
    assert (update.failed, update.message) == (True, "DRY_RUN_FAILED")
    assert stage.failed
    assert story.collected.named(SpanName.UPDATE_ACTIVATE, generation=story.generation + 1) == []


def test_what_nobody_asked_for_begins_a_trace_of_its_own(story: Story) -> None:
    first = story.collected.one(SpanName.PUSH, generation=1)
    asked = {f"{number:032x}" for number in (SUBMIT, APPROVE, INVOKE, FAIL)}
    assert first.trace_id not in asked
    stream = story.collected.one(
        SpanName.RPC_SERVER, method="/agentfactory.distribution.v1.DistributionService/Subscribe"
    )
    assert stream.trace_id not in asked
    assert story.collected.below(stream) == []


# An invocation


def test_an_invocation_is_a_tree_from_the_call_to_the_agent_that_it_asked(story: Story) -> None:
    spans = sorted(in_trace(story, INVOKE), key=lambda each: len(story.collected.path(each)))
    assert names(spans) == [
        SpanName.RPC_SERVER,
        SpanName.INVOKE,
        SpanName.SANDBOX,
        SpanName.HOST_CALL,
        SpanName.INVOKE,
        SpanName.SANDBOX,
    ]
    call, invocation, sandbox, host_call, child, child_sandbox = spans
    assert call.parent_id == f"{0xC11E47:016x}"
    assert all(lower.parent_id == upper.span_id for upper, lower in pairwise(spans))
    assert {each.service for each in spans} == {ServiceName.NODE}
    assert invocation.attributes["template"] == "dev/parent@1.0.0"
    assert host_call.attributes["host_call"] == "agents.invoke"
    assert child.attributes["template"] == "dev/echo@1.0.0"
    assert child.attributes["invocation"] != invocation.attributes["invocation"]
    assert not any(each.failed for each in spans)
    for outer, inner in ((call, invocation), (invocation, sandbox), (host_call, child), (child, child_sandbox)):
        assert outer.contains(inner), (outer.name, inner.name)


def test_the_workers_part_has_the_workers_times(story: Story) -> None:
    sandbox, child_sandbox = sorted(
        (each for each in in_trace(story, INVOKE) if each.name == SpanName.SANDBOX), key=lambda each: each.start_ns
    )
    guest_s, host_call_s = sandbox.attributes["guest_s"], sandbox.attributes["host_call_s"]
    assert guest_s == pytest.approx(story.receipt_guest_s)
    assert isinstance(guest_s, float)
    assert isinstance(host_call_s, float)
    assert 0 < guest_s + host_call_s <= sandbox.took_s <= story.receipt_wall_s
    assert sandbox.attributes["host_calls"] == 1
    assert child_sandbox.attributes["host_calls"] == 0
    assert child_sandbox.attributes["host_call_s"] == 0
    assert all(int(each.attributes["fuel"]) > 0 for each in (sandbox, child_sandbox))
    assert all(float(each.attributes["queued_s"]) >= 0 for each in (sandbox, child_sandbox))


def test_a_failure_is_marked_wherever_it_passes_with_its_kind_alone(story: Story) -> None:
    spans = {each.name: each for each in in_trace(story, FAIL)}
    assert set(spans) == {SpanName.RPC_SERVER, SpanName.INVOKE, SpanName.SANDBOX}
    assert {(each.failed, each.message) for each in spans.values()} == {(True, "FUEL")}


def test_what_the_caller_does_not_sample_is_not_sent(story: Story) -> None:
    assert in_trace(story, UNSAMPLED) == []


# Logs


def test_one_trace_id_finds_the_lines_of_both_planes(story: Story) -> None:
    def events(service: ServiceName, number: int) -> set[object]:
        return {line["event"] for line in story.lines[service] if line.get("trace_id") == f"{number:032x}"}

    assert {"generation_published", "change_reviewed", "node_reached", "rpc_answered"} <= events(
        ServiceName.CONTROL_PLANE, APPROVE
    )
    assert "generation_activated" in events(ServiceName.NODE, APPROVE)
    assert "rpc_answered" in events(ServiceName.NODE, INVOKE)
    assert "rpc_answered" in events(ServiceName.NODE, UNSAMPLED)
    assert "node_refused" in events(ServiceName.CONTROL_PLANE, REFUSE)
    assert "update_refused" in events(ServiceName.NODE, REFUSE)


def test_lines_of_other_work_carry_no_trace(story: Story) -> None:
    for lines in story.lines.values():
        started = [line for line in lines if str(line["event"]).endswith("_started") and "port" in line]
        assert started
        assert not any("trace_id" in line for line in started)


# Metrics


def test_metrics_arrive_at_the_collector(story: Story) -> None:
    plane, node = story.collected.metrics[ServiceName.CONTROL_PLANE], story.collected.metrics[ServiceName.NODE]
    assert points(plane["agentfactory_generation"])[()].as_double == story.generation + 1
    assert points(node["agentfactory_generation"])[()].as_double == story.generation
    assert points(plane["agentfactory_changes"])[("state", "APPROVED"),].as_double == 4
    assert points(plane["agentfactory_pushes"])[("stage", "refused"),].as_double == 1
    assert points(plane["agentfactory_pushes"])[("stage", "active"),].as_double == 4
    assert points(plane["agentfactory_push_seconds"])[()].count == 4
    invocations = points(node["agentfactory_invocations"])
    assert invocations[("failure", ""), ("template", "dev/parent")].as_double == 2
    assert invocations[("failure", "FUEL"), ("template", "dev/spinner")].as_double == 1
    assert points(node["agentfactory_host_calls"])[("interface", "agents"), ("result", "ok")].as_double == 2


def documented() -> dict[str, str]:
    """Return name → where, from the table in the documentation."""
    page = (ROOT / "docs/observability.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `agentfactory_")]
    return {row[1].strip(" `"): row[2].strip() for row in rows}


def scraped_names(text: str) -> set[str]:
    families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE agentfactory_")]
    return {name for name in families if not name.endswith("_created")}


@pytest.mark.parametrize(
    ("service", "where"), [(ServiceName.CONTROL_PLANE, "control plane"), (ServiceName.NODE, "node")]
)
def test_what_is_documented_is_what_a_running_process_shows(story: Story, service: ServiceName, where: str) -> None:
    expected = {name for name, place in documented().items() if place in {where, "both"}}
    assert scraped_names(story.scraped[service]) == expected
    assert all(f"\n{name} " in story.scraped[service] for name in ALWAYS)


def moved(text: str, metric: MetricName) -> bool:
    """Whether a metric has a value above 0."""
    own = (f"{metric.name} ", f"{metric.name}{{", f"{metric.name}_count")
    return any(float(line.rpartition(" ")[2]) > 0 for line in text.splitlines() if line.startswith(own))


@pytest.mark.parametrize("service", [ServiceName.CONTROL_PLANE, ServiceName.NODE])
def test_an_ordinary_run_moves_every_metric(story: Story, service: ServiceName) -> None:
    text = story.scraped[service]
    still = {metric.name for metric in METRICS if service in metric.services and not moved(text, metric)}
    assert still <= NOT_IN_AN_ORDINARY_RUN


@pytest.mark.parametrize("service", [ServiceName.CONTROL_PLANE, ServiceName.NODE])
def test_every_expiry_is_shown(story: Story, service: ServiceName) -> None:
    values = dict(
        line.rsplit(" ", 1) for line in story.scraped[service].splitlines() if "expires_timestamp_seconds" in line
    )
    roles = {
        name.split('"')[1]: float(value) for name, value in values.items() if name.startswith("agentfactory_metadata")
    }
    assert {"root", "targets", "snapshot", "timestamp", "plan", "library-dev"} <= set(roles)
    own = float(values["agentfactory_certificate_expires_timestamp_seconds"])
    assert min(own, *roles.values()) > 1.7e9
    assert roles["timestamp"] == min(roles.values())
