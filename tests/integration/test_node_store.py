"""A node that starts from its disk, with nobody to ask: what it serves, and what it refuses after damage."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from agentfactory.agent.v1 import agent_pb2 as pb
from agentfactory.node.v1 import node_pb2

from data_plane.generation_files import BlobError
from data_plane.seeding import seed_store
from service.status import from_rpc_error
from templates.charter import Mode
from templates.reasons import AgentFactoryError, Reason
from templates.revocations import Revocations
from tests.installation import default_domains
from tests.isolation import guests
from tests.node_process import NodeProcess, invoke
from tests.node_world import NodeWorld

KV = {"kv": {"namespace": "notes", "bytes_max": 400}}


@pytest.fixture
def world(tmp_path: Path) -> NodeWorld:
    world = NodeWorld.make(tmp_path / "world")
    put = guests.ask(b"kv.put", b'{"key":"k","value":"v","expected":0}')
    echo = world.command("docs/echo", guests.ECHO)
    world.publish(echo, world.command("docs/writer", put, grants=KV))
    world.seed()
    return world


def node_of(world: NodeWorld, **settings: str) -> NodeProcess:
    return NodeProcess(world.installation, world.environment(**settings))


def flip(path: Path, at: int = 60) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def reason_of(call: Callable[[], object]) -> Reason:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return from_rpc_error(error.value).reason


def test_agents_state_and_invocations_survive_a_restart_and_a_kill(world: NodeWorld) -> None:
    with node_of(world) as node:
        stub = node.agents()
        agent = stub.CreateAgent(pb.CreateAgentRequest(template="docs/writer", agent_id="kept"), timeout=30)
        first = stub.InvokeAgent(pb.InvokeAgentRequest(name=agent.name), timeout=30)
        assert "ok" in json.loads(first.output)
        assert node.stop() == 0
    with node_of(world) as node:
        stub = node.agents()
        assert stub.GetAgent(pb.GetAgentRequest(name=agent.name), timeout=30) == agent
        again = stub.InvokeAgent(pb.InvokeAgentRequest(name=agent.name), timeout=30)
        assert json.loads(again.output)["error"]["kind"] == "conflict"
        shown = stub.GetInvocation(pb.GetInvocationRequest(invocation_id=first.receipt.invocation_id), timeout=30)
        assert shown.outcome == "OK"
        other = stub.CreateAgent(pb.CreateAgentRequest(template="docs/echo", agent_id="late"), timeout=30)
        node.kill()
    with node_of(world) as node:
        assert node.agents().GetAgent(pb.GetAgentRequest(name=other.name), timeout=30) == other
        assert node.status().agents == 2


def test_two_nodes_do_not_share_a_store(world: NodeWorld) -> None:
    with node_of(world):
        second = node_of(world)
        second.launch()
        assert second.wait() == 2
        assert "another node" in second.events("node_refused_to_start")[0]["error"]


def bundle_file(store: Path) -> Path:
    return next((store / "generations").iterdir()) / "bundle"


DAMAGE: list[tuple[str, Callable[[Path], object]]] = [
    ("bundle", lambda store: flip(bundle_file(store))),
    ("bundle, cut", lambda store: bundle_file(store).write_bytes(bundle_file(store).read_bytes()[:100])),
    ("high-water mark", lambda store: flip(store / "belief")),
    ("high-water mark, gone", lambda store: (store / "belief").unlink()),
    ("blob", lambda store: flip(next((store / "blobs").iterdir()), 10)),
    ("blob, gone", lambda store: next((store / "blobs").iterdir()).unlink()),
    ("key", lambda store: flip(store / "key", 5)),
]


@pytest.mark.parametrize(("what", "damage"), DAMAGE, ids=[name for name, _ in DAMAGE])
def test_a_damaged_store_serves_nothing_and_says_why(
    world: NodeWorld, what: str, damage: Callable[[Path], object]
) -> None:
    damage(world.store("n1"))
    with node_of(world) as node:
        status = node.status()
        assert status.state == node_pb2.NODE_STATE_DAMAGED
        assert status.state_reason
        assert not status.templates
        assert node.observed("/readyz")[0] == 503
        assert node.observed("/healthz")[0] == 200
        assert reason_of(lambda: invoke(node.agents(), "docs/echo", "x")) is Reason.NODE_NOT_SERVING


def test_a_tampered_compile_cache_is_refused_and_compiled_again(world: NodeWorld) -> None:
    with node_of(world) as node:
        assert invoke(node.agents(), "docs/echo", "x").output == "x"
        node.stop()
    entries = list((world.store("n1") / "compiled").iterdir())
    assert entries
    for entry in entries:
        flip(entry, entry.stat().st_size // 2)
    with node_of(world) as node:
        assert invoke(node.agents(), "docs/echo", "y").output == "y"


def test_a_restored_older_store_does_not_bring_back_an_older_generation(world: NodeWorld) -> None:
    """The directory of generation 2 is lost, that of 1 is there: the mark forbids it."""
    older = bundle_file(world.store("n1")).parent
    world.publish(world.command("docs/echo", guests.ECHO, version="1.1.0"))
    world.seed()
    newer = next(each for each in (world.store("n1") / "generations").iterdir() if each.name != older.name)
    flip(newer / "bundle")
    with node_of(world) as node:
        status = node.status()
        assert status.state == node_pb2.NODE_STATE_DAMAGED
        assert "below the high-water mark" in status.state_reason


def test_a_crash_between_promotion_and_mark_leaves_a_generation_that_serves(world: NodeWorld) -> None:
    belief = (world.store("n1") / "belief").read_bytes()
    world.publish(world.command("docs/echo", guests.ECHO, version="1.1.0"))
    world.seed()
    (world.store("n1") / "belief").write_bytes(belief)
    with node_of(world) as node:
        assert invoke(node.agents(), "docs/echo", "x").receipt.template == "docs/echo@1.1.0"


def test_a_damaged_generation_above_the_mark_falls_back_to_the_one_that_was_acknowledged(world: NodeWorld) -> None:
    belief = (world.store("n1") / "belief").read_bytes()
    world.publish(world.command("docs/echo", guests.ECHO, version="1.1.0"))
    world.seed()
    (world.store("n1") / "belief").write_bytes(belief)
    newest = max((world.store("n1") / "generations").iterdir(), key=lambda each: each.name)
    flip(newest / "bundle")
    with node_of(world) as node:
        assert invoke(node.agents(), "docs/echo", "x").receipt.template == "docs/echo@1.0.0"


def test_an_expired_lease_is_tolerated_as_each_template_says_and_never_past_the_staleness_cap(
    tmp_path: Path,
) -> None:
    world = NodeWorld.make(tmp_path / "world")
    active = [
        world.command(f"docs/{policy.replace('_', '-')}", guests.ECHO, on_lease_expiry=policy)
        for policy in ("continue", "no_new_agents", "drain", "stop")
    ]
    signed = datetime.now(UTC) - timedelta(hours=1)
    world.publish(*active, now=signed, lease_s=60)
    world.seed(now=signed)
    with node_of(world) as node:
        status = node.status()
        assert status.state == node_pb2.NODE_STATE_SERVING
        assert status.lease_expired
        assert any("timestamp" in warning for warning in status.warnings)
        stub = node.agents()
        for template, may_create, may_invoke in [
            ("docs/continue", True, True),
            ("docs/no-new-agents", False, True),
            ("docs/drain", False, False),
            ("docs/stop", False, False),
        ]:
            create = pb.CreateAgentRequest(template=template)
            if may_create:
                stub.CreateAgent(create, timeout=30)
            else:
                assert reason_of(lambda wish=create: stub.CreateAgent(wish, timeout=30)) is Reason.LEASE_EXPIRED  # type: ignore[misc]
            if may_invoke:
                assert invoke(stub, template, "x").output == "x"
            else:
                assert reason_of(lambda name=template: invoke(stub, name)) is Reason.LEASE_EXPIRED  # type: ignore[misc]


def test_past_the_staleness_cap_nothing_is_served(tmp_path: Path) -> None:
    world = NodeWorld.make(tmp_path / "world")
    signed = datetime.now(UTC) - timedelta(hours=25)
    world.publish(world.command("docs/echo", guests.ECHO, on_lease_expiry="continue"), now=signed, lease_s=60)
    world.seed(now=signed)
    with node_of(world) as node:
        assert node.observed("/readyz")[0] == 503
        assert reason_of(lambda: invoke(node.agents(), "docs/echo")) is Reason.LEASE_EXPIRED


def test_a_production_node_refuses_a_development_root(world: NodeWorld) -> None:
    node = node_of(world, mode="production")
    node.launch()
    assert node.wait() == 2
    assert node.events("node_refused_to_start")[0]["reason"] == "DEVELOPMENT_MODE"


def test_a_production_node_serves_a_production_charter(tmp_path: Path) -> None:
    domains = {"docs": default_domains()["docs"]}
    world = NodeWorld.make(tmp_path / "world", mode=Mode.PRODUCTION, domains=domains)
    world.publish(world.command("docs/echo", guests.ECHO))
    world.seed()
    with node_of(world, mode="production") as node:
        assert invoke(node.agents(), "docs/echo", "x").output == "x"


def test_a_fresh_node_waits(tmp_path: Path) -> None:
    world = NodeWorld.make(tmp_path / "world")
    with node_of(world) as node:
        assert node.status().state == node_pb2.NODE_STATE_WAITING
        assert node.observed("/readyz")[0] == 503
        assert reason_of(lambda: invoke(node.agents(), "docs/echo")) is Reason.NODE_NOT_SERVING
        assert list(node.agents().ListTemplates(pb.ListTemplatesRequest(), timeout=30).templates) == []


# Import


def test_a_bundle_is_imported_by_the_command_line_and_served(world: NodeWorld, tmp_path: Path) -> None:
    assert world.generation is not None
    bundle, blobs = tmp_path / "bundle", tmp_path / "blobs"
    bundle.write_bytes(world.generation.bundle().to_bytes())
    blobs.mkdir()
    for sha256, data in world.blobs.items():
        (blobs / sha256).write_bytes(data)
    environment = world.environment("n2")
    importer = NodeProcess(
        world.installation, environment, ("--import-bundle", str(bundle), "--import-blobs", str(blobs))
    )
    importer.launch()
    assert importer.wait() == 0
    assert importer.events("store_seeded")[0]["generation"] == 1
    with NodeProcess(world.installation, environment) as node:
        assert invoke(node.agents(), "docs/echo", "x").receipt.node == "n2"


def test_what_is_imported_is_verified_first(world: NodeWorld) -> None:
    assert world.generation is not None
    bundle = world.generation.bundle().to_bytes()

    def seed(**changes: object) -> int:
        arguments: dict[str, object] = {
            "root": world.trust.roots[0],
            "bundle": bundle,
            "blobs": world.blobs,
            "installation": world.node_installation("n3"),
            "now": datetime.now(UTC),
            **changes,
        }
        return seed_store(world.store("n3"), **arguments)  # type: ignore[arg-type]

    with pytest.raises(BlobError):
        seed(blobs={})
    with pytest.raises(BlobError):
        seed(blobs=dict.fromkeys(world.blobs, b"other bytes"))
    with pytest.raises(AgentFactoryError):
        seed(bundle=bundle[:-10])
    with pytest.raises(AgentFactoryError) as refused:
        seed(now=datetime.now(UTC) + timedelta(days=1))
    assert refused.value.reason is Reason.METADATA_EXPIRED
    with pytest.raises(AgentFactoryError) as refused:
        seed(installation=world.node_installation("n3", production=True))
    assert refused.value.reason is Reason.DEVELOPMENT_MODE
    assert seed() == 1


def test_an_older_generation_is_not_imported(world: NodeWorld) -> None:
    older = world.generation
    world.publish(world.command("docs/echo", guests.ECHO, version="1.1.0"), revocations=Revocations())
    world.seed()
    with pytest.raises(AgentFactoryError) as refused:
        world.seed(generation=older)
    assert refused.value.reason in {Reason.GENERATION_ROLLBACK, Reason.METADATA_ROLLBACK}


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"mode": "production-ish"}, "AGENTFACTORY_NODE_MODE"),
        ({"modee": "production"}, "AGENTFACTORY_NODE_MODE"),
        ({"root_file": "/nonexistent"}, "root"),
        ({"tenant_templates": '{"acme": ["*"]}'}, "pattern"),
    ],
)
def test_a_node_with_wrong_settings_does_not_start(world: NodeWorld, settings: dict[str, str], hint: str) -> None:
    node = node_of(world, **settings)
    node.launch()
    assert node.wait() != 0
    assert hint in json.dumps(node.lines)


def test_a_node_needs_the_certificate_of_a_node(world: NodeWorld) -> None:
    files = world.installation.person("alice")
    node = node_of(world, tls_certificate_file=str(files.certificate), tls_key_file=str(files.key))
    node.launch()
    assert node.wait() == 2
    assert "certificate of a node" in json.dumps(node.lines)
