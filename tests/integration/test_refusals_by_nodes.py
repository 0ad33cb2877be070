"""What must be refused, one case each, by a real node: the code, the place or numbers, and it still serves afterwards.

A turned control plane, with a genuine identity and every online key, pushes what no reviewer approved or what was
damaged; services send what does not fit; guests misbehave. What a control plane refuses is in test_refusals.py.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from agentfactory.agent.v1 import agent_pb2 as pb
from agentfactory.agent.v1.agent_pb2_grpc import AgentServiceStub
from agentfactory.distribution.v1 import distribution_pb2
from agentfactory.node.v1 import node_pb2

from client.selftest.callers import call_over_tls_1_2
from service.status import RemoteError, from_rpc_error
from templates.approval import Statement, merge, sign
from templates.capabilities import Capabilities, derive
from templates.charter import Ceiling, Charter, Domain
from templates.document import Abi
from templates.grants import NO_GRANTS
from templates.limits import DEFAULT_LIMITS
from templates.reasons import Reason
from templates.repository import Generation, RoleKeys, RootSpec, build_root
from templates.resolved import BlobPin, ImagePin, PinnedModule, PinnedSource, ResolvedTemplate
from tests import small_modules
from tests.installation import ENVIRONMENT, new_signer
from tests.isolation import guests
from tests.node_process import NodeProcess, invoke
from tests.node_world import Approved, NodeWorld, report_of
from tests.server_lines import logged
from tests.turned_control_plane import TurnedControlPlane

ALICES_SECOND_KEY = new_signer()
SMALL = {"fuel": 50_000_000, "wall_ms": 1_000, "memory_bytes": 16 << 20, "output_bytes": 65_536, "host_calls": 10}
KV = {"kv": {"namespace": "notes", "bytes_max": 400}}


def _give_alice_two_keys(charter: Charter) -> Charter:
    keys = {**charter.persons["alice"], ALICES_SECOND_KEY.public_key.keyid: ALICES_SECOND_KEY.public_key}
    return replace(charter, persons={**charter.persons, "alice": keys})


@dataclass(frozen=True)
class Stage:
    world: NodeWorld
    active: tuple[Approved, ...]
    turned: TurnedControlPlane
    node: NodeProcess

    def signed(self, *more: Approved, **how: Any) -> Generation:
        """Sign the next generation, in which ``more`` runs too, with every online key."""
        return self.world.publish(*self.active, *more, **how)

    def refusal(self, generation: Generation, data: bytes | None = None) -> distribution_pb2.Nack:
        """Push a generation, or ``data`` in its place, and return the node's refusal."""
        bundle = generation.bundle().to_bytes() if data is None else data
        said = self.turned.push(generation.number, bundle)
        assert isinstance(said, distribution_pb2.Nack), said
        assert said.generation == generation.number
        return said


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> NodeWorld:
    return NodeWorld.make(
        tmp_path_factory.mktemp("refusals"), amend=lambda charter: _bound(_give_alice_two_keys(charter))
    )


def _bound(charter: Charter) -> Charter:
    """Add a domain in which one signature is enough for what computes alone, and two for what is granted anything."""
    ceiling = Ceiling(grants=NO_GRANTS, limits=DEFAULT_LIMITS)
    bounded = Domain(reviewers=frozenset(charter.persons), threshold=1, ceiling=ceiling, threshold_above_ceiling=2)
    return replace(charter, domains={**charter.domains, "bounded": bounded})


@pytest.fixture(scope="module")
def stage(world: NodeWorld) -> Iterator[Stage]:
    active = (
        world.command("docs/echo", guests.ECHO, limits={**SMALL, "input_bytes": 1_000}),
        world.command("docs/loops", guests.SPINNER, limits={**SMALL, "wall_ms": 30_000}),
        world.command("docs/allocates", guests.TOUCHING_HOG, limits=SMALL),
        world.command("docs/grows", guests.HOG, limits=SMALL),
        world.command("docs/floods", guests.FLOODER, limits=SMALL),
        world.command("docs/hammers", guests.HOST_HAMMERER, limits=SMALL, grants=KV),
        world.command("docs/sleeps", guests.sleeper(60_000_000_000), limits=SMALL),
        world.command(
            "docs/configured",
            guests.CONFIGURED,
            limits=SMALL,
            default_config={"depth": 1},
            config_schema={
                "type": "object",
                "properties": {"depth": {"type": "integer", "maximum": 5}},
                "additionalProperties": False,
            },
        ),
    )
    generation = world.publish(*active)
    with TurnedControlPlane(world.installation, world.blobs) as turned:
        target = f"localhost:{turned.port}"
        with NodeProcess(world.installation, world.environment(control_plane=target)) as node:
            said = turned.push(generation.number, generation.bundle().to_bytes())
            assert isinstance(said, distribution_pb2.Ack), said
            yield Stage(world, active, turned, node)


@pytest.fixture(autouse=True)
def serves_on(stage: Stage) -> Iterator[None]:
    """After every refusal the node answers, from the generation that it had before."""
    before = stage.node.status()
    yield
    assert invoke(stage.node.agents(), "docs/echo", "still here").output == "still here"
    after = stage.node.status()
    assert (after.state, after.generation) == (node_pb2.NODE_STATE_SERVING, before.generation)
    assert [each.template for each in after.templates] == [each.template for each in before.templates]


def refused(call: Callable[[], object]) -> RemoteError:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return from_rpc_error(error.value)


# Signatures


def statement_of(resolved: ResolvedTemplate, capabilities: Capabilities) -> Statement:
    return Statement(
        environment=ENVIRONMENT,
        template=resolved.ref,
        sha256=resolved.digest,
        author=resolved.author,
        capabilities=capabilities,
        expires=(datetime.now(UTC) + timedelta(days=30)).replace(microsecond=0),
    )


def _payload(stage: Stage, approved: Approved) -> bytes:
    (wasm,) = approved.blobs.values()
    return statement_of(approved.resolved, derive(approved.resolved, report_of(wasm))).to_payload()


def _by_two_keys_of_alice(stage: Stage, approved: Approved) -> bytes:
    payload = _payload(stage, approved)
    alice = stage.world.installation.reviewers["alice"]
    return merge(sign(payload, alice), sign(payload, ALICES_SECOND_KEY)).to_bytes()


def _by_bob_and_a_stranger(stage: Stage, approved: Approved) -> bytes:
    payload = _payload(stage, approved)
    bob = stage.world.installation.reviewers["bob"]
    return merge(sign(payload, bob), sign(payload, stage.world.installation.online.plan)).to_bytes()


def _with_a_wrong_signature(stage: Stage, approved: Approved) -> bytes:
    envelope = json.loads(approved.approval)
    first, second = envelope["signatures"]
    first["sig"], second["sig"] = second["sig"], first["sig"]
    return json.dumps(envelope, sort_keys=True, separators=(",", ":")).encode()


APPROVALS: dict[str, tuple[Callable[[Stage, Approved], bytes], Reason, str]] = {
    "a wrong signature": (_with_a_wrong_signature, Reason.SIGNATURE_INVALID, "signature"),
    "a missing signature": (
        lambda _stage, approved: (
            json.dumps({**json.loads(approved.approval), "signatures": []}, sort_keys=True, separators=(",", ":"))
        ).encode(),
        Reason.APPROVAL_INVALID,
        "expected",
    ),
    "an insufficient number": (
        lambda stage, approved: sign(_payload(stage, approved), stage.world.installation.reviewers["bob"]).to_bytes(),
        Reason.APPROVAL_UNDER_THRESHOLD,
        "expected 2 distinct reviewers",
    ),
    "two keys of one person": (_by_two_keys_of_alice, Reason.APPROVAL_ONE_PERSON, "alice"),
    "a stranger to the charter": (_by_bob_and_a_stranger, Reason.APPROVAL_STRANGER, "expected 2 distinct reviewers"),
    "an approval of another template": (
        lambda stage, _approved: stage.active[0].approval,
        Reason.APPROVAL_MISMATCH,
        "docs/echo",
    ),
}


@pytest.mark.parametrize("name", APPROVALS)
def test_an_approval_that_is_not_one(stage: Stage, name: str) -> None:
    make, reason, says = APPROVALS[name]
    approved = stage.world.command("docs/pushed", guests.EXIT_0, limits=SMALL)
    stage.world.library[approved.ref] = replace(approved, approval=make(stage, approved))
    nack = stage.refusal(stage.signed(approved))
    assert (nack.reason, nack.phase) == (reason, distribution_pb2.PHASE_VERIFY), nack
    assert says in nack.message
    assert not nack.retryable
    shown = stage.node.status().last_refusal
    assert (shown.reason, shown.message) == (nack.reason, nack.message), "agentctl node status shows why"


def test_no_approval_at_all(stage: Stage) -> None:
    approved = stage.world.command("docs/pushed", guests.EXIT_0, limits=SMALL)
    generation = stage.signed(approved)
    bundle = generation.bundle()
    files = {path: data for path, data in bundle.files.items() if "approvals/pushed" not in path}
    nack = stage.refusal(generation, replace(bundle, files=files).to_bytes())
    assert nack.reason in {Reason.APPROVAL_MISSING, Reason.TARGET_MISSING}
    assert "docs/" in nack.message


def test_an_authors_own_approval(stage: Stage) -> None:
    """The author's person does not count: alice wrote it, alice and bob signed, two others are needed."""
    genuine = stage.world.command("docs/pushed", guests.EXIT_0, limits=SMALL)
    (wasm,) = genuine.blobs.values()
    resolved = replace(genuine.resolved, author="alice")
    payload = statement_of(resolved, derive(resolved, report_of(wasm))).to_payload()
    reviewers = stage.world.installation.reviewers
    approval = merge(sign(payload, reviewers["alice"]), sign(payload, reviewers["bob"])).to_bytes()
    own = replace(genuine, resolved=resolved, approval=approval)
    stage.world.library[own.ref] = own
    nack = stage.refusal(stage.signed(own))
    assert (nack.reason, nack.template) == (Reason.APPROVAL_BY_AUTHOR, "docs/pushed@1.0.0")
    assert "expected 2 distinct reviewers" in nack.message
    assert "alice" in nack.message


def test_more_than_the_ceiling_of_the_domain_with_the_ordinary_threshold(stage: Stage) -> None:
    """One signature is the domain's threshold, and enough within its ceiling; the grant takes two."""
    above = stage.world.command("bounded/pushed", guests.EXIT_0, limits=SMALL, grants=KV, persons=("bob",))
    nack = stage.refusal(stage.signed(above))
    assert (nack.reason, nack.template) == (Reason.APPROVAL_UNDER_THRESHOLD, "bounded/pushed@1.0.0")
    assert "expected 2 distinct reviewers (above the domain's ceiling: grants/kv" in nack.message


# Code


def test_a_swapped_image(stage: Stage) -> None:
    """The source and its approval are genuine; its image was approved too, but is another than the pinned one."""
    wasm = small_modules.image()
    image = stage.world.module("images/tiny", wasm, version="0.1.0", persons=("alice",))
    text = b"def process(text):\n    return text\n"
    base = stage.active[0].resolved
    genuine = PinnedSource(
        source=BlobPin(sha256=hashlib.sha256(text).hexdigest(), length=len(text)),
        file="agent.py",
        image=ImagePin(template=image.ref, sha256=hashlib.sha256(wasm).hexdigest(), length=len(wasm)),
    )
    capabilities = derive(replace(base, ref=replace(base.ref, name="sourced"), code=genuine), report_of(wasm))
    swapped = replace(genuine, image=replace(genuine.image, sha256="ab" * 32))
    resolved = replace(base, ref=capabilities.template, code=swapped)
    payload = statement_of(resolved, replace(capabilities, code=swapped)).to_payload()
    reviewers = stage.world.installation.reviewers
    approved = Approved(
        resolved=resolved,
        approval=merge(sign(payload, reviewers["alice"]), sign(payload, reviewers["bob"])).to_bytes(),
        blobs={hashlib.sha256(text).hexdigest(): text},
    )
    stage.world.library[approved.ref] = approved
    nack = stage.refusal(stage.signed(approved))
    assert (nack.reason, nack.template) == (Reason.IMAGE_MISMATCH, "docs/sourced@1.0.0")
    assert "ab" * 32 in nack.message
    del stage.world.library[approved.ref], stage.world.library[image.ref]


def _module(stage: Stage, wasm: bytes, *, like: bytes, **limits: int) -> Approved:
    """Approve ``wasm`` with the capabilities of another module, as fooled reviewers would."""
    base = stage.active[0].resolved
    pin = BlobPin(sha256=hashlib.sha256(wasm).hexdigest(), length=len(wasm))
    resolved = replace(
        base,
        ref=replace(base.ref, name="fooled"),
        code=PinnedModule(module=pin, abi=Abi.COMMAND),
        limits=replace(base.limits, **limits),
    )
    shown = BlobPin(sha256=hashlib.sha256(like).hexdigest(), length=len(like))
    capabilities = derive(replace(resolved, code=PinnedModule(module=shown, abi=Abi.COMMAND)), report_of(like))
    payload = statement_of(resolved, replace(capabilities, code=resolved.code)).to_payload()
    reviewers = stage.world.installation.reviewers
    approved = Approved(
        resolved=resolved,
        approval=merge(sign(payload, reviewers["alice"]), sign(payload, reviewers["bob"])).to_bytes(),
        blobs={pin.sha256: wasm},
    )
    stage.world.library[approved.ref] = approved
    stage.world.blobs.update(approved.blobs)
    return approved


MODULES = {
    "not wasm": (b"MZ not wasm at all", Reason.NOT_WASM),
    "compiled code": (b"\x7fELF" + bytes(64), Reason.COMPILED_CODE),
    "an import that it may not have": (small_modules.command(imports=(("env", "system"),)), Reason.FORBIDDEN_IMPORT),
    "more memory than its limits": (small_modules.command(pages=4000), Reason.MODULE_MEMORY),
    "other capabilities than approved": (
        small_modules.command(imports=(("wasi_snapshot_preview1", "sched_yield"),)),
        Reason.CAPABILITIES_MISMATCH,
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_that_reviewers_were_fooled_about(stage: Stage, name: str) -> None:
    wasm, reason = MODULES[name]
    fooled = _module(stage, wasm, like=small_modules.command())
    nack = stage.refusal(stage.signed(fooled))
    del stage.world.library[fooled.ref]
    assert nack.phase == distribution_pb2.PHASE_STAGE, nack
    assert nack.reason == reason or (nack.reason == Reason.CODE_REFUSED and nack.message.startswith(str(reason)))
    assert nack.template == "docs/fooled@1.0.0"
    assert "expected" in nack.message


# Bytes, numbers and times


def test_a_flipped_byte_in_a_blob_on_its_way(stage: Stage) -> None:
    approved = stage.world.command("docs/pushed", guests.EXIT_7, limits=SMALL)
    ((digest, wasm),) = approved.blobs.items()
    stage.world.blobs[digest] = bytes([*wasm[:-1], wasm[-1] ^ 1])
    nack = stage.refusal(stage.signed(approved))
    del stage.world.blobs[digest], stage.world.library[approved.ref]
    assert nack.reason in {Reason.BLOB_MISMATCH, Reason.BLOB_UNAVAILABLE}
    assert digest[:12] in nack.message


@pytest.mark.parametrize(
    "part",
    [
        "metadata/2.root.json",
        "targets.json",
        "charter.json",
        "snapshot.json",
        "timestamp.json",
        "plan.json",
        "library-docs.json",
        "templates/echo@1.0.0.json",
        "approvals/echo@1.0.0.dsse.json",
    ],
)
def test_a_flipped_byte_anywhere_in_a_bundle(stage: Stage, part: str) -> None:
    generation = stage.signed()
    if "root" in part:
        generation = replace(generation, metadata={**generation.metadata, "2.root.json": _next_root(stage)})
    bundle = generation.bundle()
    for path in [path for path in bundle.files if path.endswith(part)]:
        data = bytearray(bundle.files[path])
        data[len(data) // 2] ^= 1
        nack = stage.refusal(generation, replace(bundle, files={**bundle.files, path: bytes(data)}).to_bytes())
        assert nack.reason.startswith(("METADATA_", "TARGET_", "SIGNATURE_", "KEY_")), nack
        assert nack.phase == distribution_pb2.PHASE_VERIFY
        assert "expected" in nack.message


def _next_root(stage: Stage) -> bytes:
    """The root that the installation's root key signs next; one that is trusted already travels, and is not read."""
    installation = stage.world.installation
    online = installation.online
    spec = RootSpec(
        environment=ENVIRONMENT,
        mode=installation.charter.mode,
        version=2,
        expires=installation.expires,
        root=RoleKeys(keys=(installation.root.public_key,)),
        targets=RoleKeys(keys=(installation.targets.public_key,)),
        snapshot=RoleKeys(keys=(online.snapshot.public_key,)),
        timestamp=RoleKeys(keys=(online.timestamp.public_key,)),
    )
    return build_root(spec, [installation.root])


def test_a_bundle_that_is_not_what_was_announced(stage: Stage) -> None:
    generation = stage.signed()
    said = stage.turned.push(generation.number, generation.bundle().to_bytes(), sha256="00" * 32)
    assert isinstance(said, distribution_pb2.Nack)
    assert said.reason in {Reason.BUNDLE_INVALID, Reason.DIGEST_MISMATCH, Reason.BLOB_MISMATCH}


def test_an_older_generation(stage: Stage) -> None:
    held = stage.node.status().generation
    older = NodeWorld.publish(replace(stage.world, generation=None), *stage.active[:1])
    assert older.number <= held
    nack = stage.refusal(older)
    assert nack.reason in {Reason.GENERATION_ROLLBACK, Reason.METADATA_ROLLBACK, Reason.GENERATION_CONFLICT}
    assert str(held) in nack.message or "expected" in nack.message


def test_a_lease_longer_than_the_charter_allows(stage: Stage) -> None:
    nack = stage.refusal(stage.signed(lease_s=601))
    assert nack.reason == Reason.LEASE_TOO_LONG
    assert "600" in nack.message
    assert "601" in nack.message


# Clients


def test_a_client_without_a_certificate(stage: Stage) -> None:
    authorities = stage.world.installation.service("web").authorities.read_bytes()
    for channel in (
        grpc.secure_channel(stage.node.target, grpc.ssl_channel_credentials(authorities)),
        grpc.insecure_channel(stage.node.target),
    ):
        with channel, pytest.raises(grpc.RpcError) as error:
            AgentServiceStub(channel).ListTemplates(pb.ListTemplatesRequest(), timeout=5)
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_client_with_tls_1_2(stage: Stage) -> None:
    method = "/agentfactory.agent.v1.AgentService/ListTemplates"
    version, received = call_over_tls_1_2(
        stage.node.port, method, stage.world.installation.service("web"), timeout_s=10
    )
    assert version == "TLSv1.2", "grpc lets the handshake pass"
    assert b"grpc-status" in received
    assert b"docs/echo" not in received
    line = logged(stage.node.lines, reason="TLS_REQUIRED")
    assert (line["method"], line["code"]) == (method, "UNAUTHENTICATED")


# Requests


@pytest.mark.parametrize(
    ("config", "reason", "says"),
    [
        ('{"depth": 6}', Reason.CONFIG_MISMATCH, "/depth"),
        ('{"colour": 1}', Reason.CONFIG_MISMATCH, "colour"),
        ('{"depth": 1, "depth": 2}', Reason.INVALID_REQUEST, "depth"),
        ("[]", Reason.INVALID_REQUEST, "config"),
    ],
)
def test_a_configuration_that_does_not_fit(stage: Stage, config: str, reason: Reason, says: str) -> None:
    request = pb.CreateAgentRequest(template="docs/configured", config=config)
    error = refused(lambda: stage.node.agents().CreateAgent(request, timeout=30))
    assert (error.reason, error.code) == (reason, grpc.StatusCode.INVALID_ARGUMENT)
    assert says in error.message


def test_an_unknown_template_is_answered_with_the_nearest_names(stage: Stage) -> None:
    error = refused(lambda: invoke(stage.node.agents(), "docs/ehco"))
    assert (error.reason, error.code) == (Reason.UNKNOWN_TEMPLATE, grpc.StatusCode.NOT_FOUND)
    assert "docs/echo" in error.message


def test_input_over_the_limit(stage: Stage) -> None:
    stub = stage.node.agents()
    assert invoke(stub, "docs/echo", "x" * 1_000).output == "x" * 1_000
    error = refused(lambda: invoke(stub, "docs/echo", "x" * 1_001))
    assert (error.reason, error.code) == (Reason.INPUT, grpc.StatusCode.INVALID_ARGUMENT)
    assert "1000" in error.message
    assert "1001" in error.message


@pytest.mark.parametrize(
    ("template", "reason", "number"),
    [
        ("docs/loops", Reason.FUEL, "50000000"),
        ("docs/floods", Reason.OUTPUT, "65536"),
        ("docs/hammers", Reason.HOST_CALLS, "10"),
        ("docs/sleeps", Reason.DEADLINE, "1000"),
    ],
)
def test_a_guest_that_goes_too_far(stage: Stage, template: str, reason: Reason, number: str) -> None:
    error = refused(lambda: invoke(stage.node.agents(), template))
    assert error.reason is reason
    assert number in error.message


@pytest.mark.parametrize("template", ["docs/allocates", "docs/grows"])
def test_a_guest_that_allocates(stage: Stage, template: str) -> None:
    error = refused(lambda: invoke(stage.node.agents(), template))
    assert error.reason is Reason.MEMORY
    assert "memory" in error.message


# The store of a node that starts

_RECOMPUTED = ("compiled", "facts")
_STATE = ("agents.db", "invocations.db", "llm_use.db")


@pytest.fixture(scope="module")
def second(stage: Stage) -> Path:
    """The store of a second node, which has served, has an agent, and is stopped."""
    stage.world.seed("n2", generation=stage.world.publish(*stage.active))
    with second_node(stage) as node:
        assert invoke(node.agents(), "docs/echo", "x").output == "x"
        node.agents().CreateAgent(pb.CreateAgentRequest(template="docs/echo", agent_id="kept"), timeout=30)
        node.stop()
    return stage.world.store("n2")


def second_node(stage: Stage) -> NodeProcess:
    return NodeProcess(stage.world.installation, stage.world.environment("n2"))


@contextmanager
def flipped(path: Path, at: int) -> Iterator[None]:
    before = path.read_bytes()
    path.write_bytes(before[:at] + bytes([before[at] ^ 0x41]) + before[at + 1 :])
    yield
    path.write_bytes(before)


def test_a_flipped_byte_in_any_file_of_a_nodes_store(stage: Stage, second: Path) -> None:
    """The node serves nothing and says why; what it can compute again (compiled code, reports) it computes again."""
    files = sorted(path for path in second.rglob("*") if path.is_file() and path.stat().st_size)
    assert {"bundle", "belief", "key", *_STATE} <= {path.name for path in files}
    echo = next(iter(stage.active[0].blobs))
    one_of_each = [path for path in files if path.parent.name not in {"blobs", *_RECOMPUTED} or echo in path.name]
    assert {"blobs", *_RECOMPUTED} <= {path.parent.name for path in one_of_each}
    for path in one_of_each:
        if path.name in _STATE:
            continue
        with flipped(path, path.stat().st_size // 2), second_node(stage) as node:
            status = node.status()
            if path.parent.name in _RECOMPUTED:
                assert status.state == node_pb2.NODE_STATE_SERVING, (path, status)
                assert invoke(node.agents(), "docs/echo", "y").output == "y"
            else:
                assert status.state == node_pb2.NODE_STATE_DAMAGED, (path, status)
                assert "expected" in status.state_reason
                assert refused(lambda it=node: invoke(it.agents(), "docs/echo")).reason is Reason.NODE_NOT_SERVING  # type: ignore[misc]
            node.stop()


@pytest.mark.parametrize("name", _STATE)
@pytest.mark.parametrize("at", [0, 28, 100, 4099], ids=["magic", "header", "page 1", "page 2"])
def test_a_broken_database_stops_the_node_with_its_name(stage: Stage, second: Path, name: str, at: int) -> None:
    for left in second.glob("*.db-*"):
        left.unlink()
    with flipped(second / name, at):
        node = second_node(stage)
        node.launch()
        assert node.wait() == 2
        (refusal,) = node.events("node_refused_to_start")
        assert refusal["reason"] == Reason.STORE_DAMAGED
        assert refusal["error"].startswith(f"{name}: expected a sound database")


def test_a_database_that_cannot_be_written_stops_the_node(stage: Stage, second: Path) -> None:
    with flipped(second / "agents.db", 18):  # a format that this SQLite may read only
        node = second_node(stage)
        node.launch()
        assert node.wait() == 2
        assert node.events("node_refused_to_start")[0]["reason"] == Reason.STORE_FAILED
    with second_node(stage) as node:
        assert node.agents().GetAgent(pb.GetAgentRequest(name="nodes/n2/agents/kept"), timeout=30).name
        node.stop()
