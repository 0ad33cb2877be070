"""Scopes of a role file at a running control plane: what a servicer asks once it knows the domain."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from agentfactory.admin.v1 import access_pb2, audit_pb2, audit_pb2_grpc, policy_pb2
from agentfactory.admin.v1 import admin_pb2 as pb

from service.status import from_rpc_error
from templates.reasons import Reason
from tests.audit_lines import audit_entries
from tests.control_plane_process import ControlPlaneProcess, PersonClient
from tests.installation import LocalInstallation, make_installation

ROLES = {
    "schema": 1,
    "bindings": [
        {"role": "author", "persons": ["alice"]},
        {"role": "author", "persons": ["anna"], "domains": ["docs"]},
        {"role": "viewer", "persons": ["vera"]},
        {"role": "viewer", "persons": ["victor"], "domains": ["docs"]},
        {"role": "operator", "persons": ["olga"], "domains": ["docs"]},
    ],
}


@dataclass
class Office:
    """Who works here; ``alice`` reviews as well, since the charter says so."""

    installation: LocalInstallation
    plane: ControlPlaneProcess
    stack: ExitStack

    def __getattr__(self, name: str) -> PersonClient:
        return self.stack.enter_context(self.plane.person(name))


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    directory = tmp_path_factory.mktemp("scopes")
    roles = directory / "roles.json"
    roles.write_text(json.dumps(ROLES))
    installation = make_installation(directory / "installation")
    with ControlPlaneProcess(installation, {"roles_file": str(roles)}) as plane, ExitStack() as stack:
        yield Office(installation, plane, stack)


def refused(call: Callable[[], Any]) -> Reason | str:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return from_rpc_error(caught.value).reason


def document(name: str, domain: str) -> dict[str, Any]:
    return {"schema": 1, "name": name, "version": "1.0.0", "domain": domain, "role": "r", "description": "d"}


def test_an_author_proposes_and_comments_in_their_domains(office: Office) -> None:
    anna = office.anna
    own = anna.submit(document("own", "docs"))
    anna.changes.CommentOnChange(pb.CommentOnChangeRequest(name=own.name, text="have a look"))
    assert refused(lambda: anna.submit(document("other", "dev"))) is Reason.PERMISSION_DENIED
    other = office.alice.submit(document("others", "dev"))
    comment = pb.CommentOnChangeRequest(name=other.name, text="I may not even read this")
    assert refused(lambda: anna.changes.CommentOnChange(comment)) is Reason.PERMISSION_DENIED
    withdrawal = pb.WithdrawChangeRequest(name=other.name, reason="not mine")
    assert refused(lambda: anna.changes.WithdrawChange(withdrawal)) is Reason.PERMISSION_DENIED
    listed = {each.template for each in anna.changes.ListChanges(pb.ListChangesRequest()).changes}
    assert "docs/own@1.0.0" in listed
    assert not any(each.startswith("dev/") for each in listed)


def test_the_audit_log_is_read_by_who_may_see_all_domains(office: Office) -> None:
    def page(person: PersonClient) -> Any:
        return audit_pb2_grpc.AuditServiceStub(person.channel).ListAuditEntries(audit_pb2.ListAuditEntriesRequest())

    assert page(office.vera).entries
    for person in (office.victor, office.olga, office.anna, office.alice):
        assert refused(lambda person=person: page(person)) is Reason.PERMISSION_DENIED  # type: ignore[misc]


def test_a_broken_glass_is_seen_in_its_domain(office: Office) -> None:
    for domain in ("docs", "dev"):
        office.alice.policies.OpenBreakGlass(
            policy_pb2.OpenBreakGlassRequest(template=f"{domain}/glass@1.0.0", reason="the site is down", minutes=5)
        )

    def seen(person: PersonClient) -> set[str]:
        page = person.policies.ListBreakGlass(policy_pb2.ListBreakGlassRequest())
        return {each.template for each in page.break_glasses}

    assert seen(office.vera) == {"docs/glass@1.0.0", "dev/glass@1.0.0"}
    assert seen(office.victor) == {"docs/glass@1.0.0"}
    asked = policy_pb2.OpenBreakGlassRequest(template="docs/glass@1.0.0", reason="the site is down")
    assert refused(lambda: office.anna.policies.OpenBreakGlass(asked)) is Reason.PERMISSION_DENIED


def test_an_operator_of_a_domain_operates_nothing_that_is_everybodys(office: Office) -> None:
    olga = office.olga
    for domain in ("docs", "dev"):
        office.alice.submit(document("stopped", domain))
    for call in (
        lambda: olga.rollouts.Rollback(pb.RollbackRequest(generation=1, reason="back")),
        lambda: olga.rollouts.Revoke(pb.RevokeRequest(node="node-1", reason="stolen")),
        lambda: olga.access.BlockAddress(access_pb2.BlockAddressRequest(network="192.0.2.1", reason="x")),
        lambda: olga.access.SetSecureMode(access_pb2.SetSecureModeRequest(on=True, reason="x")),
        lambda: olga.rollouts.Revoke(pb.RevokeRequest(template="dev/stopped@1.0.0", reason="x")),
    ):
        assert refused(call) is Reason.PERMISSION_DENIED
    olga.rollouts.Revoke(pb.RevokeRequest(template="docs/stopped@1.0.0", reason="it leaks"))


def test_an_identity_is_revoked_if_it_could_come_in(office: Office) -> None:
    foreign = pb.RevokeRequest(identity="spiffe://elsewhere/person/anna", reason="left")
    assert refused(lambda: office.alice.rollouts.Revoke(foreign)) is Reason.INVALID_REQUEST
    own = "spiffe://factory.test/tenant/acme/service/old"
    office.alice.rollouts.Revoke(pb.RevokeRequest(identity=own, reason="left"))
    newest = audit_entries(office.installation.directory / "control-plane" / "state.db")[-1]
    assert (newest["action"], newest["resource"]) == ("RolloutService/Revoke", f"identities/{own}")
