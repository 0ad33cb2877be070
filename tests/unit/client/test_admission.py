"""The policies on a reviewer's machine: believed by their approvals alone, and never an older version than before."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from agentfactory.admin.v1 import policy_pb2 as pb

from client.admission import PoliciesBehindError, as_policies, believed, candidate_of
from templates.acceptance import effective_revocations
from templates.canonical import sha256_hex
from templates.charter import Charter, Domain
from templates.comparison import Direction
from templates.document import read_template
from templates.inheritance import resolve
from templates.names import TemplateName, Version
from templates.policies.policy_set import POLICY_NAME, InvalidPolicyError, read_policies
from templates.policies.standing import Candidate, Standing
from templates.resolved import ResolvedTemplate
from templates.revocations import NO_REVOCATIONS, Revocations
from tests.trust_world import DAY, NOW, approval, charter, template

ADMIT = '@id("admit") permit (principal, action, resource);\n'
FORBID = '@id("no-wider") forbid (principal, action, resource) when { resource.widens };'


def governed(**changes: object) -> Charter:
    reviewers = Domain(reviewers=frozenset({"alice", "bob", "carol"}), threshold=2)
    known = charter()
    return replace(known, domains={**known.domains, "policies": reviewers}, **changes)  # type: ignore[arg-type]


def carried(text: str = FORBID, version: str = "1.0.0") -> ResolvedTemplate:
    document = json.dumps(read_policies({"a.cedar": ADMIT + text}).document(version)).encode()
    return resolve(read_template(document), (), author="dave", code=None)


def shown(resolved: ResolvedTemplate, *by: str) -> Candidate:
    return Candidate(
        ref=resolved.ref, sha256=resolved.digest, resolved=resolved.to_bytes(), approval=approval(resolved, *by)
    )


def judged(
    candidate: Candidate | None,
    memory: Path,
    *,
    of: Charter | None = None,
    revocations: Revocations = NO_REVOCATIONS,
) -> Standing:
    known = of or governed()
    return believed(
        candidate, charter=known, revocations=effective_revocations(known, revocations), memory=memory, now=NOW
    )


def test_policies_with_the_reviewers_signatures_are_believed(tmp_path: Path) -> None:
    found = judged(shown(carried(), "alice", "bob"), tmp_path)
    assert (found.named, found.problem, found.approvers) == (
        "policies/admission@1.0.0",
        "",
        frozenset({"alice", "bob"}),
    )
    assert found.policies is not None
    assert [each.name for each in found.policies.policies] == ["admit", "no-wider"]


@pytest.mark.parametrize(
    ("forge", "why"),
    [
        (lambda good: shown(carried(), "alice"), "APPROVAL_UNDER_THRESHOLD"),
        (lambda good: shown(carried(), "alice", "dave"), "APPROVAL_STRANGER"),
        (lambda good: shown(carried(), "alice", "alice"), "APPROVAL_UNDER_THRESHOLD"),
        (lambda good: replace(good, resolved=(lax := carried("")).to_bytes(), sha256=lax.digest), "APPROVAL_MISMATCH"),
        (lambda good: replace(good, resolved=carried("").to_bytes()), "DIGEST_MISMATCH"),
        (lambda good: replace(good, resolved=b"{}", sha256=sha256_hex(b"{}")), "INVALID_TEMPLATE"),
        (lambda good: replace(good, approval=b""), "APPROVAL_INVALID"),
    ],
)
def test_whatever_else_a_control_plane_shows_permits_nothing(forge: object, why: str, tmp_path: Path) -> None:
    good = shown(carried(), "alice", "bob")
    found = judged(forge(good), tmp_path)  # type: ignore[operator]
    assert found.policies is None
    assert why in found.problem


def test_revoked_expired_and_too_old_policies_permit_nothing(tmp_path: Path) -> None:
    good = shown(carried(), "alice", "bob")
    assert (
        "TEMPLATE_REVOKED"
        in judged(good, tmp_path, revocations=Revocations(templates=frozenset({good.sha256}))).problem
    )
    assert (
        "APPROVAL_BY_REVOKED" in judged(good, tmp_path, revocations=Revocations(reviewers=frozenset({"bob"}))).problem
    )
    floor = governed(floors={POLICY_NAME: Version(1, 1, 0)})
    assert "BELOW_FLOOR" in judged(good, tmp_path, of=floor).problem
    assert "floor" in judged(None, tmp_path, of=floor).problem
    late = believed(good, charter=governed(), revocations=NO_REVOCATIONS, memory=tmp_path, now=NOW + 400 * DAY)
    assert "APPROVAL_EXPIRED" in late.problem


def test_without_a_domain_for_policies_the_defaults_hold_whatever_is_shown(tmp_path: Path) -> None:
    for candidate in (None, shown(carried(), "alice", "bob")):
        assert judged(candidate, tmp_path, of=charter()).named == "built-in defaults"


def test_a_machine_that_has_seen_newer_policies_believes_no_older_ones_and_not_that_there_are_none(
    tmp_path: Path,
) -> None:
    memory = tmp_path / "review"
    assert judged(None, memory).named == "built-in defaults"
    judged(shown(carried(version="1.2.0"), "alice", "bob"), memory)
    judged(shown(carried(version="1.2.0"), "alice", "carol"), memory)
    for older in (shown(carried(version="1.1.9"), "alice", "bob"), None):
        with pytest.raises(PoliciesBehindError, match=r"from 1\.2\.0"):
            judged(older, memory)
    judged(shown(carried(version="1.3.0"), "alice", "bob"), memory)


def test_what_is_not_believed_is_not_remembered(tmp_path: Path) -> None:
    assert judged(shown(carried(version="9.9.9"), "alice"), tmp_path).policies is None
    assert judged(shown(carried(), "alice", "bob"), tmp_path).problem == ""


def test_a_policy_message_is_about_the_policies_and_nothing_else() -> None:
    assert candidate_of(pb.Policy()) is None
    with pytest.raises(PoliciesBehindError, match="docs/other"):
        candidate_of(pb.Policy(template="docs/other@1.0.0"))


def test_proposed_policies_are_compared_with_those_in_force(tmp_path: Path) -> None:
    present = judged(shown(carried(), "alice", "bob"), tmp_path)
    entries, diff = as_policies(carried("", "1.1.0"), present)
    directions = {each.subject: each.direction for each in entries}
    assert directions == {"/policies/admit": Direction.SAME, "/policies/no-wider": Direction.WIDENED}
    assert '-@id("no-wider")' in diff
    assert "--- policies/admission@1.0.0/a.cedar" in diff
    with pytest.raises(InvalidPolicyError):
        as_policies(template(), present)
    assert TemplateName("policies", "admission") == POLICY_NAME
