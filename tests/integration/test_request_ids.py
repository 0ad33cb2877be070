"""Every RPC that changes something, on a real control plane: tried, done once for its id, and again after a SIGKILL."""

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc
import pytest
from agentfactory.admin.v1 import admin_pb2 as pb
from google.protobuf.message import Message

from service.status import RemoteError, from_rpc_error
from templates.approval import sign
from templates.reasons import Reason
from tests import small_modules
from tests.control_plane_process import ControlPlaneProcess, PersonClient
from tests.installation import LocalInstallation, make_installation

TOOL = {"module": "tool.wasm", "abi": "command"}


def document(name: str, version: str = "1.0.0", **members: Any) -> dict[str, Any]:
    base = {"schema": 1, "name": name, "version": version, "domain": "docs", "role": "r", "description": "d"}
    return {**base, **members}


def fresh() -> str:
    return str(uuid.uuid4())


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> LocalInstallation:
    return make_installation(tmp_path_factory.mktemp("ids") / "installation")


@pytest.fixture(scope="module")
def plane(installation: LocalInstallation) -> Iterator[ControlPlaneProcess]:
    with ControlPlaneProcess(installation, {"debounce_ms": "10"}) as started:
        yield started
        assert started.stop() == 0


@pytest.fixture
def alice(plane: ControlPlaneProcess) -> Iterator[PersonClient]:
    with plane.person("alice") as client:
        yield client


def refusal(call: Callable[[], Any]) -> RemoteError:
    with pytest.raises(grpc.RpcError) as refused:
        call()
    return from_rpc_error(refused.value)


class Stage:
    """Makes, for each RPC, a request that alice may send, and another one that she may send too."""

    def __init__(self, alice: PersonClient, installation: LocalInstallation) -> None:
        self.alice = alice
        self.installation = installation
        self.name = f"t{uuid.uuid4().hex[:8]}"

    def waiting(self, **members: Any) -> pb.Change:
        return self.alice.submit(document(self.name, **members), small_modules.command())

    def active(self) -> pb.Change:
        return self.alice.approve(self.waiting(code=TOOL), self.installation, "bob", "carol")

    def approve(self) -> tuple[Any, Message, Message]:
        change = self.waiting(code=TOOL)
        bob, carol = (sign(change.statement, self.installation.reviewers[each]).to_bytes() for each in ("bob", "carol"))
        request = pb.ApproveChangeRequest(name=change.name, envelope=bob)
        return self.alice.changes.ApproveChange, request, pb.ApproveChangeRequest(name=change.name, envelope=carol)

    def approve_to_the_threshold(self) -> tuple[Any, Message, Message]:
        method, first, last = self.approve()
        method(first)
        return method, last, first

    def closing(self, method: str, change: pb.Change) -> tuple[Any, Message, Message]:
        kind = getattr(pb, f"{method}Request")
        first, other = kind(name=change.name, reason="one"), kind(name=change.name, reason="another")
        return getattr(self.alice.changes, method), first, other

    def restore(self) -> tuple[Any, Message, Message]:
        change = self.active()
        self.alice.changes.DeprecateChange(pb.DeprecateChangeRequest(name=change.name, reason="old"))
        return self.closing("RestoreChange", change)

    def submit(self) -> tuple[Any, Message, Message]:
        draft = self.draft()
        first = pb.SubmitChangeRequest(name=draft.name)
        return self.alice.changes.SubmitChange, first, pb.SubmitChangeRequest(name=draft.name, etag=draft.etag)

    def draft(self) -> pb.Change:
        header = self.header()
        header.draft = True
        return send(self.alice)(header)

    def submission(self) -> tuple[Any, Message, Message]:
        other = self.header()
        other.filename = "another.json"
        return send(self.alice), self.header(), other

    def header(self) -> pb.SubmitHeader:
        module = small_modules.command()
        return pb.SubmitHeader(
            document=json.dumps(document(self.name, code=TOOL)).encode(),
            filename="template.json",
            blobs=[pb.BlobHeader(sha256=hashlib.sha256(module).digest(), length=len(module))],
        )

    def comment(self) -> tuple[Any, Message, Message]:
        name = self.waiting(code=TOOL).name
        first, other = (pb.CommentOnChangeRequest(name=name, text=text) for text in ("one", "another"))
        return self.alice.changes.CommentOnChange, first, other

    def rollback(self) -> tuple[Any, Message, Message]:
        self.active()
        self.name += "x"
        self.active()
        first, other = (pb.RollbackRequest(reason=reason) for reason in ("one", "another"))
        return self.alice.rollouts.Rollback, first, other

    def revoke(self) -> tuple[Any, Message, Message]:
        template = self.active().template
        first, other = (pb.RevokeRequest(template=template, reason=reason) for reason in ("one", "another"))
        return self.alice.rollouts.Revoke, first, other

    def update_trust(self) -> tuple[Any, Message, Message]:
        trust = self.alice.keys.GetTrust(pb.GetTrustRequest())
        first = pb.UpdateTrustRequest(targets=trust.targets, charter=trust.charter)
        return self.alice.keys.UpdateTrust, first, pb.UpdateTrustRequest(charter=trust.charter)


def send(client: PersonClient) -> Callable[[pb.SubmitHeader], pb.Change]:
    def submit(header: pb.SubmitHeader) -> pb.Change:
        parts = [pb.SubmitTemplateRequest(header=header), pb.SubmitTemplateRequest(piece=small_modules.command())]
        return client.templates.SubmitTemplate(iter(parts), timeout=60)

    return submit


CASES: Mapping[str, Callable[[Stage], tuple[Any, Message, Message]]] = {
    "SubmitTemplate": Stage.submission,
    "ApproveChange": Stage.approve,
    "ApproveChange, the last": Stage.approve_to_the_threshold,
    "RejectChange": lambda stage: stage.closing("RejectChange", stage.waiting(code=TOOL)),
    "WithdrawChange": lambda stage: stage.closing("WithdrawChange", stage.waiting(code=TOOL)),
    "DeprecateChange": lambda stage: stage.closing("DeprecateChange", stage.active()),
    "RestoreChange": Stage.restore,
    "SubmitChange": Stage.submit,
    "CommentOnChange": Stage.comment,
    "Rollback": Stage.rollback,
    "Revoke": Stage.revoke,
    "UpdateTrust": Stage.update_trust,
}


def with_fields(request: Any, **fields: Any) -> Any:
    copy = type(request).FromString(request.SerializeToString())
    for name, value in fields.items():
        setattr(copy, name, value)
    return copy


def state_of(alice: PersonClient) -> tuple[int, list[bytes]]:
    """Return what a mutation would change: the generation, and every change with its etag."""
    generation = alice.fleet.ListNodes(pb.ListNodesRequest()).generation
    page = alice.changes.ListChanges(pb.ListChangesRequest(page_size=200))
    return generation, [each.SerializeToString(deterministic=True) for each in page.changes]


def test_the_cases_are_all_that_there_are() -> None:
    methods = {
        method.name
        for service in pb.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if not method.name.startswith(("Get", "List", "Fetch"))
    }
    assert {case.partition(",")[0] for case in CASES} == methods


@pytest.mark.parametrize("case", CASES)
def test_is_tried_without_effect_and_done_once(case: str, alice: PersonClient, installation: LocalInstallation) -> None:
    method, request, other = CASES[case](Stage(alice, installation))
    before = state_of(alice)
    number = fresh()
    tried = method(with_fields(request, validate_only=True, request_id=number))
    assert isinstance(tried, Message)
    assert state_of(alice) == before

    first = method(with_fields(request, request_id=number))
    after = state_of(alice)
    again = method(with_fields(request, request_id=number))
    assert again.SerializeToString(deterministic=True) == first.SerializeToString(deterministic=True)
    assert state_of(alice) == after
    reused = refusal(lambda: method(with_fields(other, request_id=number)))
    assert (reused.reason, reused.code) == (Reason.REQUEST_ID_REUSED, grpc.StatusCode.FAILED_PRECONDITION)
    assert refusal(lambda: method(with_fields(request, request_id="no-uuid"))).reason is Reason.INVALID_REQUEST
    assert state_of(alice) == after


def test_a_refused_request_may_be_repeated_under_its_id(alice: PersonClient, installation: LocalInstallation) -> None:
    stage = Stage(alice, installation)
    draft, number = stage.draft(), fresh()
    deprecate = pb.DeprecateChangeRequest(name=draft.name, reason="old", request_id=number)
    assert refusal(lambda: alice.changes.DeprecateChange(deprecate)).reason is Reason.CHANGE_STATE
    sent = alice.changes.SubmitChange(pb.SubmitChangeRequest(name=draft.name))
    alice.approve(sent, installation, "bob", "carol")
    assert alice.changes.DeprecateChange(deprecate).state == pb.CHANGE_STATE_DEPRECATED


def test_an_etag_that_is_stale_is_aborted(alice: PersonClient, installation: LocalInstallation) -> None:
    change = Stage(alice, installation).waiting(code=TOOL)
    now = alice.changes.CommentOnChange(pb.CommentOnChangeRequest(name=change.name, text="wait", etag=change.etag))
    stale = refusal(lambda: alice.changes.WithdrawChange(pb.WithdrawChangeRequest(name=change.name, etag=change.etag)))
    assert (stale.reason, stale.code) == (Reason.ETAG_MISMATCH, grpc.StatusCode.ABORTED)
    assert stale.metadata == {"etag": now.etag}
    closed = alice.changes.WithdrawChange(pb.WithdrawChangeRequest(name=change.name, etag=now.etag))
    assert closed.state == pb.CHANGE_STATE_WITHDRAWN
    trust = alice.keys.GetTrust(pb.GetTrustRequest())
    update = pb.UpdateTrustRequest(targets=trust.targets, charter=trust.charter, etag="another")
    assert refusal(lambda: alice.keys.UpdateTrust(update)).code is grpc.StatusCode.ABORTED


def test_what_waits_for_whom(plane: ControlPlaneProcess, installation: LocalInstallation, alice: PersonClient) -> None:
    stage = Stage(alice, installation)
    change = stage.waiting(code=TOOL)
    stage.name += "d"
    draft = stage.draft()

    def waits_for(person: str) -> set[str]:
        found, token = set[str](), ""
        while True:
            page = alice.changes.ListChanges(pb.ListChangesRequest(waiting_for=person, page_size=3, page_token=token))
            found |= {each.name for each in page.changes}
            token = page.next_page_token
            if not token:
                return found

    assert list(change.waiting_for) == ["bob", "carol"]
    assert change.name in waits_for("bob") & waits_for("carol")
    assert draft.name in waits_for("alice")
    alice.approve(change, installation, "bob")
    assert change.name in waits_for("carol")
    assert change.name not in waits_for("bob") | waits_for("alice") | waits_for("mallory")


@pytest.mark.timeout(300)
def test_the_same_answer_after_a_sigkill(tmp_path_factory: pytest.TempPathFactory) -> None:
    installation = make_installation(tmp_path_factory.mktemp("kill") / "installation")
    done: dict[str, tuple[Message, bytes]] = {}
    plane = ControlPlaneProcess(installation).start()
    with plane.person("alice") as alice:
        for case in CASES:
            method, request, _ = CASES[case](Stage(alice, installation))
            request = with_fields(request, request_id=fresh())
            done[case] = (request, method(request).SerializeToString(deterministic=True))
    plane.kill()
    with ControlPlaneProcess(installation) as again, again.person("alice") as alice:
        before = state_of(alice)
        for case, (request, answer) in done.items():
            assert method_of(case, alice)(request).SerializeToString(deterministic=True) == answer, case
        assert state_of(alice) == before


def method_of(case: str, alice: PersonClient) -> Any:
    name = case.partition(",")[0]
    if name == "SubmitTemplate":
        return send(alice)
    (stub,) = (each for each in (alice.changes, alice.rollouts, alice.keys) if hasattr(each, name))
    return getattr(stub, name)
