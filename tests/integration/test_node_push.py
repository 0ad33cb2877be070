"""A real node under a real control plane: published, refused, revoked, resent after damage, and left alone."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from agentfactory.admin.v1 import admin_pb2
from agentfactory.agent.v1 import agent_pb2 as pb
from agentfactory.node.v1 import node_pb2

from sandbox.engine import wat2wasm
from service.status import from_rpc_error
from templates.reasons import Reason
from tests.control_plane_process import ControlPlaneProcess, PersonClient
from tests.isolation import guests
from tests.node_process import NodeProcess, invoke
from tests.node_world import NodeWorld

ECHO = wat2wasm(guests.ECHO)
SMALL = {"fuel": 50_000_000, "wall_ms": 5_000, "memory_bytes": 16 << 20}


def document(name: str, version: str = "1.0.0", **more: Any) -> dict[str, Any]:
    domain, _, short = name.partition("/")
    return {
        "schema": 1,
        "domain": domain,
        "name": short,
        "version": version,
        "code": {"module": "agent.wasm", "abi": "command"},
        "limits": SMALL,
        **more,
    }


@pytest.fixture
def world(tmp_path: Path) -> NodeWorld:
    return NodeWorld.make(tmp_path / "world")


@pytest.fixture
def control_plane(world: NodeWorld) -> Iterator[ControlPlaneProcess]:
    with ControlPlaneProcess(world.installation) as process:
        yield process


@pytest.fixture
def carol(control_plane: ControlPlaneProcess) -> Iterator[PersonClient]:
    with control_plane.person("carol") as client:
        yield client


def node_of(world: NodeWorld, control_plane: ControlPlaneProcess, node: str = "n1") -> NodeProcess:
    target = f"localhost:{control_plane.port}"
    return NodeProcess(world.installation, world.environment(node, control_plane=target, reconnect_s_max="1"))


@pytest.fixture
def node(world: NodeWorld, control_plane: ControlPlaneProcess) -> Iterator[NodeProcess]:
    with node_of(world, control_plane) as process:
        yield process


def publish(
    carol: PersonClient, world: NodeWorld, name: str, wasm: bytes = ECHO, version: str = "1.0.0", **more: Any
) -> admin_pb2.Change:
    return carol.publish(world.installation, document(name, version, **more), wasm, by=("alice", "bob"))


def has(*templates: str) -> Any:
    def true(status: node_pb2.NodeStatus) -> bool:
        return {each.template for each in status.templates} == set(templates)

    return true


def reasons_of(errors: Sequence[grpc.RpcError]) -> set[Reason]:
    return {from_rpc_error(error).reason for error in errors}


def test_a_published_template_is_active_on_the_node_with_its_approvers(
    world: NodeWorld, node: NodeProcess, carol: PersonClient
) -> None:
    publish(carol, world, "docs/echo")
    status = node.until("docs/echo", has("docs/echo@1.0.0"))
    assert list(status.templates[0].approvers) == ["alice", "bob"]
    assert status.control_plane_connected
    assert not status.HasField("last_refusal")
    assert invoke(node.agents(), "docs/echo", "hello").output == "hello"
    fleet = carol.fleet.ListNodes(admin_pb2.ListNodesRequest(), timeout=30)
    assert "n1" in str(fleet)


def test_a_new_version_takes_over_without_one_failure_and_running_ones_finish_on_theirs(
    world: NodeWorld, node: NodeProcess, carol: PersonClient
) -> None:
    publish(carol, world, "docs/slow", wat2wasm(guests.sleeper(1_500_000_000)))
    publish(carol, world, "docs/echo")
    node.until("both", has("docs/slow@1.0.0", "docs/echo@1.0.0"))
    stub = node.agents()
    agent = stub.CreateAgent(pb.CreateAgentRequest(template="docs/echo"), timeout=30)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(invoke, stub, "docs/slow")
        publish(carol, world, "docs/slow", wat2wasm(guests.sleeper(1)), "1.1.0")
        publish(carol, world, "docs/echo", wat2wasm(guests.PIGGYBACK), "1.1.0")
        versions: list[str] = []
        while versions[-1:] != ["docs/echo@1.1.0"]:
            answer = stub.InvokeAgent(pb.InvokeAgentRequest(name=agent.name, input="x"), timeout=30)
            versions.append(answer.receipt.template)
        assert running.result().receipt.template == "docs/slow@1.0.0"
    assert versions == sorted(versions)
    node.until("the slow one too", has("docs/slow@1.1.0", "docs/echo@1.1.0"))
    assert invoke(stub, "docs/slow").receipt.template == "docs/slow@1.1.0"


def test_a_template_that_cannot_start_is_refused_and_the_last_good_generation_serves(
    world: NodeWorld, node: NodeProcess, carol: PersonClient
) -> None:
    publish(carol, world, "docs/echo")
    node.until("docs/echo", has("docs/echo@1.0.0"))
    generation = node.status().generation
    publish(carol, world, "docs/stuck", wat2wasm(guests.START_SPINNER))
    status = node.until("a refusal", lambda status: status.HasField("last_refusal"))
    refusal = status.last_refusal
    assert (refusal.phase, refusal.reason) == ("stage", "DRY_RUN_FAILED")
    assert refusal.template == "docs/stuck@1.0.0"
    assert refusal.generation == generation + 1
    assert "FUEL" in refusal.message
    assert status.generation == generation
    assert invoke(node.agents(), "docs/echo", "x").output == "x"
    publish(carol, world, "docs/stuck", ECHO, "1.0.1")
    status = node.until("the repaired one", has("docs/echo@1.0.0", "docs/stuck@1.0.1"))
    assert not status.HasField("last_refusal")


def test_a_revoked_template_stops_running_and_is_not_served_again(
    world: NodeWorld, node: NodeProcess, carol: PersonClient
) -> None:
    publish(carol, world, "docs/slow", wat2wasm(guests.sleeper(4_000_000_000)))
    publish(carol, world, "docs/echo")
    node.until("both", has("docs/slow@1.0.0", "docs/echo@1.0.0"))
    stub = node.agents()
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(invoke, stub, "docs/slow")
        node.until("an invocation in flight", lambda status: status.in_flight == 1)
        revoke(carol, "docs/slow@1.0.0")
        error = running.exception(30)
        assert isinstance(error, grpc.RpcError)
        assert from_rpc_error(error).reason is Reason.REVOKED
    node.until("docs/echo alone", has("docs/echo@1.0.0"))
    with pytest.raises(grpc.RpcError) as refused:
        invoke(stub, "docs/slow")
    assert from_rpc_error(refused.value).reason is Reason.UNKNOWN_TEMPLATE
    assert invoke(stub, "docs/echo", "x").output == "x"


def revoke(client: PersonClient, template: str) -> None:
    client.rollouts.Revoke(admin_pb2.RevokeRequest(template=template, reason="a test"), timeout=30)


def test_a_node_without_its_control_plane_serves_and_catches_up_when_it_is_back(
    world: NodeWorld, control_plane: ControlPlaneProcess, node: NodeProcess, carol: PersonClient
) -> None:
    publish(carol, world, "docs/echo")
    node.until("docs/echo", has("docs/echo@1.0.0"))
    control_plane.kill()
    node.until("no connection", lambda status: not status.control_plane_connected)
    assert invoke(node.agents(), "docs/echo", "x").output == "x"
    node.stop()
    with NodeProcess(world.installation, node.environment) as restarted:
        assert invoke(restarted.agents(), "docs/echo", "x").output == "x"
        back = ControlPlaneProcess(world.installation, {"listen_port": str(control_plane.port)})
        with back, back.person("carol") as client:
            restarted.until("a connection", lambda status: status.control_plane_connected)
            publish(client, world, "docs/echo", ECHO, "1.1.0")
            restarted.until("docs/echo 1.1.0", has("docs/echo@1.1.0"))


@pytest.mark.parametrize("damaged", ["bundle", "belief", "blob", "compiled", "everything"])
def test_a_damaged_store_is_mended_by_the_next_snapshot(
    world: NodeWorld, control_plane: ControlPlaneProcess, carol: PersonClient, damaged: str
) -> None:
    publish(carol, world, "docs/echo")
    with node_of(world, control_plane) as node:
        node.until("docs/echo", has("docs/echo@1.0.0"))
        node.stop()
    store = world.store("n1")
    for name in ("bundle", "belief", "blob", "compiled") if damaged == "everything" else (damaged,):
        path = {
            "bundle": lambda: max((store / "generations").iterdir()) / "bundle",
            "belief": lambda: store / "belief",
            "blob": lambda: next((store / "blobs").iterdir()),
            "compiled": lambda: next((store / "compiled").iterdir()),
        }[name]()
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    with node_of(world, control_plane) as node:
        node.until("docs/echo", has("docs/echo@1.0.0"))
        assert invoke(node.agents(), "docs/echo", "x").output == "x"
        assert bool(node.events("store_damaged")) is (damaged != "compiled")
        node.stop()
    with NodeProcess(world.installation, world.environment()) as alone:
        assert invoke(alone.agents(), "docs/echo", "x").output == "x"


def test_leases_are_renewed_and_survive_a_restart(world: NodeWorld) -> None:
    settings = {"lease_renewal_s": "0.5"}
    with ControlPlaneProcess(world.installation, settings) as control_plane, control_plane.person("carol") as carol:
        publish(carol, world, "docs/echo")
        with node_of(world, control_plane) as node:
            first = node.until("docs/echo", has("docs/echo@1.0.0"))
            later = node.until(
                "a newer lease",
                lambda status: status.lease_expire_time.seconds > first.lease_expire_time.seconds + 1,
            )
            assert later.generation == first.generation
            node.kill()
    with NodeProcess(world.installation, world.environment()) as alone:
        assert alone.status().lease_expire_time.seconds >= later.lease_expire_time.seconds


def test_a_control_plane_of_another_installation_gets_nowhere(world: NodeWorld, tmp_path: Path) -> None:
    """Same certificates, other keys: whoever holds the transport cannot make the node believe."""
    world.publish(world.command("docs/echo", guests.ECHO))
    world.seed()
    other = NodeWorld.make(tmp_path / "other")
    mixed = world.installation.control_plane_environment()
    with ControlPlaneProcess(other.installation, _transport_of(mixed)) as liar:
        with liar_client(world, liar) as carol:
            change = carol.submit(document("docs/evil"), ECHO)
            carol.approve(change, other.installation, "alice", "bob")
        environment = world.environment(control_plane=f"localhost:{liar.port}", reconnect_s_max="1")
        with NodeProcess(world.installation, environment) as node:
            status = node.until("a refusal", lambda status: status.HasField("last_refusal"))
            assert status.last_refusal.phase == "verify"
            assert {each.template for each in status.templates} == {"docs/echo@1.0.0"}
            assert invoke(node.agents(), "docs/echo", "x").output == "x"
            time.sleep(0.2)
            assert node.status().state == node_pb2.NODE_STATE_SERVING


def _transport_of(environment: dict[str, str]) -> dict[str, str]:
    prefix = "AGENTFACTORY_CP_"
    names = ("tls_certificate_file", "tls_key_file", "tls_authorities_file")
    return {name: environment[f"{prefix}{name.upper()}"] for name in names}


def liar_client(world: NodeWorld, liar: ControlPlaneProcess) -> PersonClient:
    return PersonClient(liar.channel(world.installation.person("carol")))
