"""No call that may change something leaves the control plane without an entry in its audit log, whatever its outcome.

The list of such calls comes from the protocol's descriptors: a new one fails here until somebody says how it is made.
"""

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from agentfactory.admin.v1 import access_pb2, policy_pb2
from agentfactory.admin.v1 import admin_pb2 as pb
from agentfactory.distribution.v1 import distribution_pb2 as distribution
from agentfactory.distribution.v1.distribution_pb2_grpc import DistributionServiceStub
from google.protobuf import descriptor_pool

import control_plane.main  # noqa: F401 -- it knows every service
from control_plane.audit_recorder import reads
from control_plane.authorisation import SERVICE_NAMES
from templates.reasons import Reason
from tests import small_modules
from tests.audit_lines import audit_entries, audit_lines
from tests.control_plane_process import ControlPlaneProcess, PersonClient
from tests.installation import LocalInstallation, make_installation

DOCUMENT: dict[str, Any] = {"schema": 1, "version": "1.0.0", "domain": "docs", "role": "r", "description": "d"}


def changing_calls() -> list[str]:
    """Return ``Service/Method`` of every method of the control plane that may change something."""
    pool = descriptor_pool.Default()
    services = [pool.FindServiceByName(name) for name in SERVICE_NAMES]
    actions = [f"{service.name}/{method.name}" for service in services for method in service.methods]
    return sorted(action for action in actions if not reads(action))


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> LocalInstallation:
    return make_installation(tmp_path_factory.mktemp("audited") / "installation")


@pytest.fixture(scope="module")
def plane(installation: LocalInstallation) -> Iterator[ControlPlaneProcess]:
    with ControlPlaneProcess(installation, {"debounce_ms": "0"}) as started:
        yield started


@pytest.fixture
def alice(plane: ControlPlaneProcess) -> Iterator[PersonClient]:
    with plane.person("alice") as client:
        yield client


def entries(installation: LocalInstallation) -> list[dict[str, Any]]:
    return audit_entries(installation.directory / "control-plane" / "state.db")


Make = Callable[[PersonClient, LocalInstallation], Any]


def _rollback(alice: PersonClient, installation: LocalInstallation) -> None:
    code = {"module": "cpython.wasm", "abi": "command"}
    alice.publish(
        installation,
        {**DOCUMENT, "name": "rolled", "domain": "dev", "code": code},
        small_modules.command(),
        by=["alice"],
    )
    alice.rollouts.Rollback(pb.RollbackRequest(generation=0, reason="as before"))


def _revoke(alice: PersonClient, installation: LocalInstallation) -> None:
    alice.publish(installation, {**DOCUMENT, "name": "revoked", "domain": "dev"}, by=["alice"])
    alice.rollouts.Revoke(pb.RevokeRequest(template="dev/revoked@1.0.0", reason="it leaks"))


def _approve(alice: PersonClient, installation: LocalInstallation) -> None:
    alice.publish(installation, {**DOCUMENT, "name": "approved", "domain": "dev"}, by=["alice"])


def _reject(alice: PersonClient, _installation: LocalInstallation) -> None:
    change = alice.submit({**DOCUMENT, "name": "rejected"})
    alice.changes.RejectChange(pb.RejectChangeRequest(name=change.name, reason="a typo"))


def _update_trust(alice: PersonClient, installation: LocalInstallation) -> None:
    amended = installation.amended_charter(approval_days_max=30)
    alice.keys.UpdateTrust(pb.UpdateTrustRequest(targets=amended.targets, charter=amended.charter))


def _withdraw(alice: PersonClient, _installation: LocalInstallation) -> None:
    change = alice.submit({**DOCUMENT, "name": "withdrawn"})
    alice.changes.WithdrawChange(pb.WithdrawChangeRequest(name=change.name, reason="not yet"))


def _comment(alice: PersonClient, _installation: LocalInstallation) -> None:
    change = alice.submit({**DOCUMENT, "name": "discussed"})
    alice.changes.CommentOnChange(pb.CommentOnChangeRequest(name=change.name, text="why so much memory?"))


def _deprecate(alice: PersonClient, installation: LocalInstallation) -> pb.Change:
    change = alice.publish(installation, {**DOCUMENT, "name": "deprecated", "domain": "dev"}, by=["alice"])
    return alice.changes.DeprecateChange(pb.DeprecateChangeRequest(name=change.name, reason="use another"))


def _restore(alice: PersonClient, installation: LocalInstallation) -> None:
    change = alice.publish(installation, {**DOCUMENT, "name": "restored", "domain": "dev"}, by=["alice"])
    alice.changes.DeprecateChange(pb.DeprecateChangeRequest(name=change.name, reason="use another"))
    alice.changes.RestoreChange(pb.RestoreChangeRequest(name=change.name, reason="it is fine"))


def _submit_draft(alice: PersonClient, _installation: LocalInstallation) -> None:
    header = pb.SubmitHeader(
        document=json.dumps({**DOCUMENT, "name": "drafted"}).encode(), filename="template.json", draft=True
    )
    change = alice.templates.SubmitTemplate(iter([pb.SubmitTemplateRequest(header=header)]))
    alice.changes.SubmitChange(pb.SubmitChangeRequest(name=change.name))


def _open_glass(person: PersonClient, name: str) -> policy_pb2.BreakGlass:
    wish = policy_pb2.OpenBreakGlassRequest(template=f"docs/{name}@1.0.0", reason="the site is down", minutes=5)
    return person.policies.OpenBreakGlass(wish)


def _close_glass(alice: PersonClient, _installation: LocalInstallation) -> None:
    alice.policies.CloseBreakGlass(policy_pb2.CloseBreakGlassRequest(name=_open_glass(alice, "closed").name))


def _confirm_glass(alice: PersonClient, _installation: LocalInstallation) -> None:
    (waiting,) = (
        glass
        for glass in alice.policies.ListBreakGlass(policy_pb2.ListBreakGlassRequest()).break_glasses
        if glass.template == "docs/confirmed@1.0.0"
    )
    alice.policies.ConfirmBreakGlass(policy_pb2.ConfirmBreakGlassRequest(name=waiting.name))


def _secure_mode(alice: PersonClient, _installation: LocalInstallation) -> None:
    alice.access.SetSecureMode(access_pb2.SetSecureModeRequest(on=True, reason="a drill"))


def _block(alice: PersonClient, network: str) -> None:
    alice.access.BlockAddress(access_pb2.BlockAddressRequest(network=network, reason="it guesses", ttl_s=60))


def _unblock(alice: PersonClient, _installation: LocalInstallation) -> None:
    alice.access.UnblockAddress(access_pb2.UnblockAddressRequest(network="192.0.2.8"))


WELL: dict[str, Make] = {
    "AccessService/BlockAddress": lambda alice, _: _block(alice, "192.0.2.7"),
    "AccessService/SetSecureMode": _secure_mode,
    "AccessService/UnblockAddress": _unblock,
    "ChangeService/ApproveChange": _approve,
    "ChangeService/CommentOnChange": _comment,
    "ChangeService/DeprecateChange": _deprecate,
    "ChangeService/RejectChange": _reject,
    "ChangeService/RestoreChange": _restore,
    "ChangeService/SubmitChange": _submit_draft,
    "ChangeService/WithdrawChange": _withdraw,
    "KeyService/UpdateTrust": _update_trust,
    "PolicyService/CloseBreakGlass": _close_glass,
    "PolicyService/ConfirmBreakGlass": _confirm_glass,
    "PolicyService/OpenBreakGlass": lambda alice, _: _open_glass(alice, "opened"),
    "RolloutService/Revoke": _revoke,
    "RolloutService/Rollback": _rollback,
    "TemplateService/SubmitTemplate": lambda alice, _: alice.submit({**DOCUMENT, "name": "submitted"}),
}
"""How each call is made so that it changes something. Whoever adds a method adds a line here."""

BEFORE: dict[str, Callable[[PersonClient], Any]] = {
    "AccessService/UnblockAddress": lambda bob: _block(bob, "192.0.2.8"),
    "PolicyService/ConfirmBreakGlass": lambda bob: _open_glass(bob, "confirmed"),
}
"""What somebody else must have done before."""

AFTER: dict[str, Callable[[PersonClient], Any]] = {
    "AccessService/SetSecureMode": lambda bob: bob.access.SetSecureMode(access_pb2.SetSecureModeRequest(on=False)),
}
"""What must be undone for the others' sake."""

WITHOUT_BYTES = frozenset(action for action in WELL if action.startswith("PolicyService/"))
"""What is about a version's name, which may have no bytes yet."""

REFUSED: dict[str, Make] = {
    "AccessService/BlockAddress": lambda alice, _: _block(alice, "127.0.0.0/8"),
    "AccessService/SetSecureMode": lambda mallory, _: mallory.access.SetSecureMode(
        access_pb2.SetSecureModeRequest(on=False)
    ),
    "AccessService/UnblockAddress": lambda alice, _: alice.access.UnblockAddress(
        access_pb2.UnblockAddressRequest(network="192.0.2.99")
    ),
    "ChangeService/ApproveChange": lambda alice, _: alice.changes.ApproveChange(
        pb.ApproveChangeRequest(name="changes/99", envelope=b"{}")
    ),
    "ChangeService/RejectChange": lambda alice, _: alice.changes.RejectChange(
        pb.RejectChangeRequest(name="changes/99")
    ),
    "ChangeService/CommentOnChange": lambda alice, _: alice.changes.CommentOnChange(
        pb.CommentOnChangeRequest(name="changes/99", text="hello?")
    ),
    "ChangeService/DeprecateChange": lambda alice, _: alice.changes.DeprecateChange(
        pb.DeprecateChangeRequest(name="changes/99", reason="old")
    ),
    "ChangeService/RestoreChange": lambda alice, _: alice.changes.RestoreChange(
        pb.RestoreChangeRequest(name="changes/99", reason="new")
    ),
    "ChangeService/SubmitChange": lambda alice, _: alice.changes.SubmitChange(
        pb.SubmitChangeRequest(name="changes/99")
    ),
    "ChangeService/WithdrawChange": lambda alice, _: alice.changes.WithdrawChange(
        pb.WithdrawChangeRequest(name="changes/99", reason="none")
    ),
    "KeyService/UpdateTrust": lambda alice, _: alice.keys.UpdateTrust(pb.UpdateTrustRequest(charter=b"{}")),
    "PolicyService/CloseBreakGlass": lambda alice, _: alice.policies.CloseBreakGlass(
        policy_pb2.CloseBreakGlassRequest(name="breakGlass/99")
    ),
    "PolicyService/ConfirmBreakGlass": lambda alice, _: alice.policies.ConfirmBreakGlass(
        policy_pb2.ConfirmBreakGlassRequest(name="breakGlass/99")
    ),
    "PolicyService/OpenBreakGlass": lambda alice, _: alice.policies.OpenBreakGlass(
        policy_pb2.OpenBreakGlassRequest(template="docs/refused@1.0.0", reason="no")
    ),
    "RolloutService/Revoke": lambda alice, _: alice.rollouts.Revoke(pb.RevokeRequest(reviewer="nobody")),
    "RolloutService/Rollback": lambda alice, _: alice.rollouts.Rollback(pb.RollbackRequest(generation=99)),
    "TemplateService/SubmitTemplate": lambda alice, _: alice.submit(b"{}"),
}
"""How each call is made so that it is refused."""

REFUSED_TO = {"AccessService/SetSecureMode": "mallory"}
"""Who is refused what alice may always do."""


@pytest.mark.parametrize("action", changing_calls())
def test_every_change_leaves_an_entry_in_its_own_transaction(
    action: str, plane: ControlPlaneProcess, alice: PersonClient, installation: LocalInstallation
) -> None:
    assert action in WELL, f"say in WELL how {action} is made, so that this test can look for its entry"
    if action in BEFORE:
        with plane.person("bob") as bob:
            BEFORE[action](bob)
    before = len(entries(installation))
    WELL[action](alice, installation)
    if action in AFTER:
        with plane.person("bob") as bob:
            AFTER[action](bob)
    written = [
        entry
        for entry in entries(installation)[before:]
        if entry["action"] == action and entry["principal"].endswith("/alice")
    ]
    assert [entry["outcome"] for entry in written] == ["DONE"], "record the decision: see control_plane.audit"
    (entry,) = written
    assert entry["address"] == "127.0.0.1"
    assert entry["resource"]
    assert entry["digests"] or action in WITHOUT_BYTES


@pytest.mark.parametrize("action", changing_calls())
def test_every_refused_change_leaves_an_entry_with_its_code(
    action: str, plane: ControlPlaneProcess, installation: LocalInstallation
) -> None:
    assert action in REFUSED, f"say in REFUSED how {action} is refused, so that this test can look for its entry"
    before = len(entries(installation))
    with plane.person(REFUSED_TO.get(action, "alice")) as person, pytest.raises(grpc.RpcError):
        REFUSED[action](person, installation)
    written = entries(installation)[before:]
    assert [(entry["action"], entry["outcome"]) for entry in written] == [(action, "REFUSED")]
    assert written[0]["code"] in Reason.__members__


def test_setting_what_is_set_leaves_an_entry_that_says_so(alice: PersonClient, installation: LocalInstallation) -> None:
    for _ in range(2):
        alice.access.SetSecureMode(access_pb2.SetSecureModeRequest(on=True, reason="a drill"))
    alice.access.SetSecureMode(access_pb2.SetSecureModeRequest(on=False))
    kept = [(entry["outcome"], entry["resource"], entry["reason"]) for entry in entries(installation)[-3:]]
    assert kept == [
        ("DONE", "access/secure-mode", "a drill"),
        ("UNCHANGED", "access/secure-mode", ""),
        ("DONE", "access/secure-mode", ""),
    ]


def test_an_entry_says_with_which_roles_its_caller_came(alice: PersonClient, installation: LocalInstallation) -> None:
    alice.submit({**DOCUMENT, "name": "role-bearer"})
    roles = entries(installation)[-1]["roles"]
    assert {"person", "viewer", "author", "operator", "admin", "reviewer:docs"} <= set(roles)


def test_a_call_that_changes_nothing_leaves_an_entry_that_says_so(
    alice: PersonClient, installation: LocalInstallation
) -> None:
    for _ in range(2):
        alice.submit({**DOCUMENT, "name": "again"}, request_id=str(uuid.uuid4()))
    alice.submit({**DOCUMENT, "name": "checked"}, validate_only=True)
    written = [(entry["outcome"], entry["resource"]) for entry in entries(installation)[-3:]]
    assert [outcome for outcome, _ in written] == ["DONE", "UNCHANGED", "UNCHANGED"]
    assert [resource for _, resource in written[1:]] == ["templates/docs/again@1.0.0", "templates/docs/checked@1.0.0"]


def test_effects_and_refusals_name_the_trace_of_their_call(
    alice: PersonClient, installation: LocalInstallation
) -> None:
    change = alice.submit({**DOCUMENT, "name": "traced"})
    for number in (1, 2):  # the second one finds the change closed
        traceparent = f"00-{number:032x}-{number:016x}-01"
        try:
            alice.changes.WithdrawChange(
                pb.WithdrawChangeRequest(name=change.name, reason="a typo"), metadata=(("traceparent", traceparent),)
            )
        except grpc.RpcError:
            assert number == 2
    written = [(entry["outcome"], entry["trace_id"]) for entry in entries(installation)[-2:]]
    assert written == [("DONE", f"{1:032x}"), ("REFUSED", f"{2:032x}")]


def test_reading_leaves_none_and_refused_reading_does(
    plane: ControlPlaneProcess, alice: PersonClient, installation: LocalInstallation
) -> None:
    before = len(entries(installation))
    alice.changes.ListChanges(pb.ListChangesRequest())
    with pytest.raises(grpc.RpcError):
        alice.changes.GetChange(pb.GetChangeRequest(name="changes/99"))
    assert len(entries(installation)) == before
    with plane.channel(installation.person("alice")) as channel, pytest.raises(grpc.RpcError):
        list(DistributionServiceStub(channel).FetchBlobs(distribution.FetchBlobsRequest()))
    (entry,) = entries(installation)[before:]
    assert (entry["action"], entry["code"]) == ("DistributionService/FetchBlobs", "PERMISSION_DENIED")


CANARY = "canary-7f3a-secret"


def test_no_payload_and_no_secret_reaches_the_log(
    plane: ControlPlaneProcess, alice: PersonClient, installation: LocalInstallation
) -> None:
    """Everything that a caller sends, well-formed or not, carries the canary."""
    document = {**DOCUMENT, "name": "canary", "description": CANARY, "default_config": {"key": CANARY}}
    change = alice.submit(document)
    for bad in (
        lambda: alice.submit({**document, "name": "other"}, request_id=CANARY),
        lambda: alice.submit({**document, "name": CANARY * 9}),
        lambda: alice.submit({**document, CANARY: CANARY}),
        lambda: alice.submit(CANARY.encode()),
        lambda: alice.submit({**DOCUMENT, "name": "pieces"}, CANARY.encode()),
        lambda: alice.changes.ApproveChange(pb.ApproveChangeRequest(name=change.name, envelope=CANARY.encode())),
        lambda: alice.changes.ApproveChange(pb.ApproveChangeRequest(name=CANARY, envelope=b"")),
        lambda: alice.keys.UpdateTrust(pb.UpdateTrustRequest(charter=CANARY.encode())),
        lambda: alice.rollouts.Revoke(pb.RevokeRequest(template=CANARY, reason=CANARY)),
        lambda: alice.changes.RejectChange(pb.RejectChangeRequest(name=f"changes/{CANARY}", reason=CANARY)),
        lambda: alice.changes.RejectChange(
            pb.RejectChangeRequest(name="changes/99"), metadata=(("authorization", CANARY),)
        ),
    ):
        with pytest.raises(grpc.RpcError):
            bad()
    alice.changes.CommentOnChange(pb.CommentOnChangeRequest(name=change.name, text=CANARY))
    lines = b"\n".join(audit_lines(installation.directory / "control-plane" / "state.db"))
    assert b"docs/canary@1.0.0" in lines
    assert CANARY.encode() not in lines


def test_a_flood_of_one_refusal_is_counted(
    plane: ControlPlaneProcess, alice: PersonClient, installation: LocalInstallation
) -> None:
    before = len(entries(installation))
    with plane.person("bob") as bob:
        for number in range(50):
            with pytest.raises(grpc.RpcError):
                bob.rollouts.Rollback(pb.RollbackRequest(generation=1000 + number))
    (first,) = entries(installation)[before:]
    assert (first["code"], first["count"]) == ("GENERATION_UNKNOWN", 1)
    assert plane.stop() == 0
    counted = [entry for entry in entries(installation)[before + 1 :] if entry["principal"].endswith("/bob")]
    assert [(entry["code"], entry["count"]) for entry in counted] == [("GENERATION_UNKNOWN", 49)]
    assert counted[0]["since"] < counted[0]["time"]
