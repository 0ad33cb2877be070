"""A real control plane process, asked over mutual TLS: from a submission to a signed generation, and refusals."""

import hashlib
import json
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from agentfactory.admin.v1 import admin_pb2 as pb
from agentfactory.distribution.v1 import distribution_pb2, distribution_pb2_grpc

from service.identity import Identity
from service.keystore import KeyKind
from service.local_ca import LocalCa
from service.status import from_rpc_error
from service.tls import TlsFiles
from templates.approval import Envelope, sign
from templates.bundle import decompress, read_bundle
from templates.capabilities import ModuleReport, derive
from templates.reasons import Reason
from templates.resolved import read_resolved
from templates.trusted_set import Belief, Installation, accept
from tests import small_modules
from tests.control_plane_process import ControlPlaneProcess, PersonClient
from tests.installation import ENVIRONMENT, TRUST_DOMAIN, LocalInstallation, make_installation, new_signer

SOURCE = b"def process(text):\n    return text\n"


def document(name: str, version: str = "1.0.0", domain: str = "docs", **members: Any) -> dict[str, Any]:
    base = {"schema": 1, "name": name, "version": version, "domain": domain, "role": "r", "description": "d"}
    return {**base, **members}


IMAGE = document("cpython", "0.1.0", "images", code={"module": "cpython.wasm", "abi": "component"})


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> LocalInstallation:
    return make_installation(tmp_path_factory.mktemp("cp") / "installation")


@pytest.fixture(scope="module")
def plane(installation: LocalInstallation) -> Iterator[ControlPlaneProcess]:
    with ControlPlaneProcess(installation, {"debounce_ms": "10"}) as started:
        yield started
        assert started.stop() == 0


@pytest.fixture
def alice(plane: ControlPlaneProcess) -> Iterator[PersonClient]:
    with plane.person("alice") as client:
        yield client


def reason_of(call: Callable[[], Any]) -> Reason:
    with pytest.raises(grpc.RpcError) as refused:
        call()
    return from_rpc_error(refused.value).reason


def test_from_a_document_to_a_generation_that_a_node_accepts(
    plane: ControlPlaneProcess, installation: LocalInstallation, alice: PersonClient
) -> None:
    module = small_modules.image()
    image = alice.publish(installation, IMAGE, module, by=["bob"])
    assert (image.state, list(image.approvers)) == (pb.CHANGE_STATE_APPROVED, ["bob"])
    code = {"source": "agent.py", "image": "cpython"}
    change = alice.submit(document("echo", code=code), SOURCE)
    assert (change.state, change.threshold, list(change.reviewers)) == (pb.CHANGE_STATE_IN_REVIEW, 2, ["bob", "carol"])

    parts = list(alice.changes.FetchChange(pb.FetchChangeRequest(name=change.name)))
    header = parts[0].header
    blobs: dict[str, bytes] = {}
    for part in parts[1:]:
        blobs[part.piece.sha256.hex()] = blobs.get(part.piece.sha256.hex(), b"") + part.piece.data
    assert {hashlib.sha256(data).hexdigest() for data in blobs.values()} == set(blobs)
    assert set(blobs.values()) == {SOURCE, module}
    resolved = read_resolved(header.resolved)
    report = ModuleReport(
        sha256=hashlib.sha256(module).hexdigest(),
        length=len(module),
        kind="component",
        imports=(),
        exports=("load", "process"),
        memories=(),
    )
    statement = Envelope(payload=change.statement, signatures={}).statement()
    again = replace(statement, capabilities=derive(resolved, report), sha256=resolved.digest, template=resolved.ref)
    assert again.to_payload() == change.statement, "a reviewer derives the same bytes to sign"

    with plane.person("bob") as bob:
        waiting = bob.approve(change, installation, "bob")
        assert (waiting.state, list(waiting.approvers)) == (pb.CHANGE_STATE_IN_REVIEW, ["bob"])
    active = alice.approve(change, installation, "carol")
    assert (active.state, list(active.approvers)) == (pb.CHANGE_STATE_ACTIVE, ["bob", "carol"])

    trust = alice.keys.GetTrust(pb.GetTrustRequest())
    accepted = accept(
        read_bundle(decompress(trust.bundle_zstd)),
        belief=Belief(root=installation.trust.roots[0]),
        installation=Installation(node_id="node-1", environment=ENVIRONMENT, production=False),
        now=datetime.now(UTC),
    )
    assert accepted.generation == active.generation
    assert [str(each.ref) for each in accepted.templates.values()] == ["docs/echo@1.0.0"]
    assert tuple(trust.roots) == installation.trust.roots

    listed = alice.templates.ListTemplates(pb.ListTemplatesRequest(domain="docs"))
    assert [(each.name, each.state) for each in listed.templates] == [("docs/echo@1.0.0", pb.CHANGE_STATE_ACTIVE)]
    newest = alice.templates.GetTemplate(pb.GetTemplateRequest(name="docs/echo"))
    assert (newest.name, list(newest.approvers)) == ("docs/echo@1.0.0", ["bob", "carol"])
    generations = alice.rollouts.ListGenerations(pb.ListGenerationsRequest())
    assert generations.generations[0].cause == f"change {change.name}"

    second = alice.submit(document("echo", "1.1.0", code=code), SOURCE + b"#")
    header = next(iter(alice.changes.FetchChange(pb.FetchChangeRequest(name=second.name)))).header
    assert read_resolved(header.active).ref == resolved.ref
    assert header.image == header.active_image != b""
    held = [hashlib.sha256(module).digest()]
    rest = list(alice.changes.FetchChange(pb.FetchChangeRequest(name=second.name, held_sha256=held)))
    assert [each.length for each in rest[0].header.blobs] == [len(SOURCE) + 1, len(SOURCE)]


def test_lists_come_in_pages(alice: PersonClient) -> None:
    for name in ("one", "two", "three"):
        alice.submit(document(name))
    seen: list[str] = []
    token = ""
    while True:
        page = alice.changes.ListChanges(
            pb.ListChangesRequest(page_size=2, page_token=token, state=pb.CHANGE_STATE_IN_REVIEW)
        )
        assert len(page.changes) <= 2
        seen += [each.template for each in page.changes]
        token = page.next_page_token
        if not token:
            break
    assert {"docs/one@1.0.0", "docs/two@1.0.0", "docs/three@1.0.0"} <= set(seen)
    assert len(seen) == len(set(seen))
    assert reason_of(lambda: alice.changes.ListChanges(pb.ListChangesRequest(page_token="x"))) is Reason.INVALID_REQUEST


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (b"MZ not wasm at all", Reason.NOT_WASM),
        (b"\x7fELF" + bytes(64), Reason.COMPILED_CODE),
        (small_modules.command()[:-3], Reason.MODULE_INVALID),
        (small_modules.command(imports=(("env", "system"),)), Reason.FORBIDDEN_IMPORT),
        (small_modules.command(pages=4000), Reason.MODULE_MEMORY),
        (small_modules.image(), Reason.MODULE_MISMATCH),
    ],
    ids=["not wasm", "ELF", "truncated", "import", "memory", "wrong kind"],
)
def test_modules_are_inspected_in_the_jail_and_refused(alice: PersonClient, module: bytes, reason: Reason) -> None:
    tool = document("tool", code={"module": "tool.wasm", "abi": "command"})
    assert reason_of(lambda: alice.submit(tool, module)) is reason
    assert alice.submit(tool, small_modules.command(), validate_only=True).statement


def test_a_document_s_problems_travel_with_their_places(alice: PersonClient) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        alice.submit(b'{"schema": 1,\n "name": 7, "colour": "red"}')
    error = from_rpc_error(refused.value)
    assert error.reason is Reason.INVALID_TEMPLATE
    assert len(error.violations) >= 2


def test_submitting_again_is_the_same_change_and_other_bytes_are_refused(alice: PersonClient) -> None:
    request_id = str(uuid.uuid4())
    first = alice.submit(document("same"), request_id=request_id)
    assert alice.submit(document("same"), request_id=request_id) == first
    assert alice.submit(document("same")).name == first.name
    assert reason_of(lambda: alice.submit(document("same", role="x"))) is Reason.VERSION_EXISTS
    assert reason_of(lambda: alice.submit(document("other"), request_id=request_id)) is Reason.REQUEST_ID_REUSED
    assert reason_of(lambda: alice.submit(document("other"), request_id="request-1")) is Reason.INVALID_REQUEST
    lie = [hashlib.sha256(b"x").digest()]
    tool = document("tool", code={"module": "tool.wasm", "abi": "command"})
    assert reason_of(lambda: alice.submit(tool, small_modules.command(), sha256=lie)) is Reason.BLOB_MISMATCH


def test_unknown_names_are_answered_with_the_nearest(alice: PersonClient) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        alice.templates.GetTemplate(pb.GetTemplateRequest(name="docs/ehco"))
    error = from_rpc_error(refused.value)
    assert (error.reason, error.code) == (Reason.TEMPLATE_UNKNOWN, grpc.StatusCode.NOT_FOUND)
    assert "docs/echo" in error.message
    assert reason_of(lambda: alice.changes.GetChange(pb.GetChangeRequest(name="changes/999"))) is Reason.CHANGE_UNKNOWN
    assert reason_of(lambda: alice.changes.GetChange(pb.GetChangeRequest(name="9"))) is Reason.CHANGE_UNKNOWN


def test_signatures_that_count_for_nothing_are_refused(
    plane: ControlPlaneProcess, installation: LocalInstallation, alice: PersonClient
) -> None:
    change = alice.submit(document("refused"))
    stranger = sign(change.statement, new_signer()).to_bytes()
    other = sign(alice.submit(document("refused-2")).statement, installation.reviewers["bob"]).to_bytes()

    def approve(envelope: bytes) -> Callable[[], Any]:
        return lambda: alice.changes.ApproveChange(pb.ApproveChangeRequest(name=change.name, envelope=envelope))

    assert reason_of(lambda: alice.approve(change, installation, "alice")) is Reason.APPROVAL_BY_AUTHOR
    assert reason_of(approve(stranger)) is Reason.APPROVAL_STRANGER
    assert reason_of(approve(other)) is Reason.APPROVAL_MISMATCH
    assert reason_of(approve(b"{}")) is Reason.APPROVAL_INVALID
    rejected = alice.changes.RejectChange(pb.RejectChangeRequest(name=change.name, reason="my mistake"))
    assert (rejected.state, rejected.reject_reason) == (pb.CHANGE_STATE_REJECTED, "alice: my mistake")
    assert reason_of(lambda: alice.approve(change, installation, "bob")) is Reason.CHANGE_CLOSED


def test_each_kind_of_peer_reaches_its_own_services_only(
    plane: ControlPlaneProcess, installation: LocalInstallation, alice: PersonClient
) -> None:
    node = PersonClient(plane.channel(installation.node("node-1")))
    service = PersonClient(plane.channel(installation.service("billing")))
    for stranger in (node, service):
        with stranger:
            assert reason_of(lambda it=stranger: it.submit(document("x"))) is Reason.PERMISSION_DENIED  # type: ignore[misc]
            assert reason_of(lambda it=stranger: it.fleet.ListNodes(pb.ListNodesRequest())) is Reason.PERMISSION_DENIED  # type: ignore[misc]
    push = distribution_pb2_grpc.DistributionServiceStub(alice.channel)
    assert reason_of(lambda: list(push.Subscribe(iter([])))) is Reason.PERMISSION_DENIED
    fetch = distribution_pb2.FetchBlobsRequest(sha256=[bytes(32)])
    assert reason_of(lambda: list(push.FetchBlobs(fetch))) is Reason.PERMISSION_DENIED
    foreign = make_foreign(installation)
    with PersonClient(plane.channel(foreign)) as eve, pytest.raises(grpc.RpcError) as refused:
        eve.fleet.ListNodes(pb.ListNodesRequest(), timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE, "the handshake fails"


def make_foreign(installation: LocalInstallation) -> TlsFiles:
    ca = LocalCa.create(installation.directory / "foreign", trust_domain=TRUST_DOMAIN, now=datetime.now(UTC))
    issued = ca.issue(Identity.person(TRUST_DOMAIN, "alice"), now=datetime.now(UTC))
    files = issued.write(installation.directory / "identities" / "foreign-alice")
    return replace(files, authorities=installation.person("alice").authorities)


def test_rolling_back_and_revoking_take_a_reviewer_of_the_charter(
    plane: ControlPlaneProcess, installation: LocalInstallation, alice: PersonClient
) -> None:
    tool = {"module": "tool.wasm", "abi": "command"}
    versions = [
        alice.publish(
            installation, document("roll", version, code=tool), small_modules.command(pages=pages), by=["bob", "carol"]
        )
        for pages, version in ((1, "1.0.0"), (2, "1.1.0"))
    ]
    with plane.person("dave") as dave:
        rollback = pb.RollbackRequest(reason="slow")
        assert reason_of(lambda: dave.rollouts.Rollback(rollback)) is Reason.PERMISSION_DENIED
        revoke = pb.RevokeRequest(template="docs/roll@1.1.0")
        assert reason_of(lambda: dave.rollouts.Revoke(revoke)) is Reason.PERMISSION_DENIED
        assert dave.submit(document("by-dave")).author == "dave", "anyone of the installation may propose"
    back = alice.rollouts.Rollback(pb.RollbackRequest(reason="slow"))
    assert back.cause == f"rollback to {versions[0].generation}: slow"
    assert "docs/roll@1.0.0" in back.templates
    assert back.generation == versions[1].generation + 1
    gone = alice.rollouts.Revoke(pb.RevokeRequest(template="docs/roll@1.0.0", reason="worse"))
    assert not [each for each in gone.templates if each.startswith("docs/roll@")]
    assert reason_of(lambda: alice.rollouts.Rollback(pb.RollbackRequest())) is Reason.ROLLBACK_REFUSED
    change = alice.changes.GetChange(pb.GetChangeRequest(name=versions[0].name))
    assert change.state == pb.CHANGE_STATE_REVOKED
    for wrong in (
        pb.RevokeRequest(),
        pb.RevokeRequest(module="abc"),
        pb.RevokeRequest(reviewer="nobody"),
        pb.RevokeRequest(node=""),
    ):
        assert reason_of(lambda it=wrong: alice.rollouts.Revoke(it)) is Reason.INVALID_REQUEST  # type: ignore[misc]
    unknown = pb.RevokeRequest(template="docs/nobody@1.0.0")
    assert reason_of(lambda: alice.rollouts.Revoke(unknown)) is Reason.TEMPLATE_UNKNOWN


def test_roles_are_listed_with_what_is_about_to_expire(alice: PersonClient) -> None:
    listed = alice.keys.ListRoles(pb.ListRolesRequest())
    roles = {role.name: role for role in listed.roles}
    assert {"root", "targets", "snapshot", "timestamp", "plan", "library-docs"} <= set(roles)
    assert not roles["root"].online
    assert roles["plan"].online
    assert roles["root"].threshold == 1
    assert list(listed.warnings) == []


def test_new_trust_documents_are_verified_before_they_take_effect(
    installation: LocalInstallation, alice: PersonClient
) -> None:
    amended = installation.amended_charter(lease_s_max=300)
    forged = replace(installation, targets=new_signer()).amended_charter(lease_s_max=10_000)
    before = alice.keys.GetTrust(pb.GetTrustRequest()).charter
    for charter, targets, reason in (
        (forged.charter, forged.targets, Reason.METADATA_UNDER_THRESHOLD),
        (amended.charter, b"", Reason.TARGET_MISMATCH),
        (b"{}", amended.targets, Reason.CHARTER_INVALID),
    ):
        request = pb.UpdateTrustRequest(targets=targets, charter=charter)
        assert reason_of(lambda it=request: alice.keys.UpdateTrust(it)) is reason  # type: ignore[misc]
    assert reason_of(lambda: alice.keys.UpdateTrust(pb.UpdateTrustRequest())) is Reason.INVALID_REQUEST
    assert alice.keys.GetTrust(pb.GetTrustRequest()).charter == before
    answer = alice.keys.UpdateTrust(pb.UpdateTrustRequest(targets=amended.targets, charter=amended.charter))
    assert answer.generation > 1
    assert alice.keys.GetTrust(pb.GetTrustRequest()).charter == amended.charter


def test_it_can_be_observed(plane: ControlPlaneProcess) -> None:
    base = f"http://127.0.0.1:{plane.observation_port}"
    with urllib.request.urlopen(f"{base}/readyz", timeout=10) as answer:
        facts = json.load(answer)
    assert facts["generation"] >= 1
    with urllib.request.urlopen(f"{base}/metrics", timeout=10) as answer:
        metrics = answer.read().decode()
    for name in ("agentfactory_generation", "agentfactory_publications_total", "agentfactory_subscribers"):
        assert name in metrics
    assert 'agentfactory_metadata_expires_timestamp_seconds{role="root"}' in metrics


def test_logs_hold_no_secrets(plane: ControlPlaneProcess) -> None:
    text = json.dumps(plane.lines)
    assert "a passphrase for tests" not in text
    assert "PRIVATE KEY" not in text
    assert plane.events("generation_published")


def test_rsa_keys_work_as_well(tmp_path_factory: pytest.TempPathFactory) -> None:
    installation = make_installation(tmp_path_factory.mktemp("rsa") / "installation", kind=KeyKind.RSA)
    with ControlPlaneProcess(installation) as plane, plane.person("alice") as alice:
        change = alice.publish(installation, document("base"), by=["bob", "carol"])
        assert change.state == pb.CHANGE_STATE_APPROVED
        assert plane.stop() == 0
