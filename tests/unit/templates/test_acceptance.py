from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from templates.acceptance import (
    AcceptedTemplate,
    Material,
    WithdrawnError,
    accept_template,
    check_capabilities,
    effective_revocations,
    tally,
)
from templates.approval import read_envelope
from templates.canonical import sha256_hex
from templates.capabilities import derive
from templates.charter import Charter, Domain, Mode
from templates.document import Abi
from templates.grants import Grants, KvGrant
from templates.limits import DEFAULT_LIMITS
from templates.names import TemplateName, TemplateRef, Version
from templates.plan import PlanEntry
from templates.reasons import AgentFactoryError, Reason
from templates.resolved import ImagePin, PinnedSource
from templates.revocations import NO_REVOCATIONS, Revocations
from tests.trust_world import (
    AGENT_REF,
    DAY,
    HARDWARE_MODULE,
    IMAGE_MODULE,
    IMAGE_REF,
    NOW,
    SOURCE,
    approval,
    charter,
    entry,
    hardware,
    image,
    module_code,
    persons,
    report,
    signer,
    template,
)


@dataclass
class Case:
    """Everything that the rule looks at; in order unless a test changes it."""

    charter: Charter = field(default_factory=charter)
    template: bytes = field(default_factory=lambda: template().to_bytes())
    approval: bytes | None = field(default_factory=lambda: approval(template(), "alice", "bob"))
    image: Material | None = field(
        default_factory=lambda: Material(resolved=image().to_bytes(), approval=approval(image(), "alice"))
    )
    entry: PlanEntry | None = None
    revocations: Revocations = NO_REVOCATIONS
    now: datetime = NOW

    def accept(self) -> AcceptedTemplate:
        materials = {AGENT_REF: Material(resolved=self.template, approval=self.approval)}
        if self.image is not None:
            materials[IMAGE_REF] = self.image
        named = self.entry or PlanEntry(template=AGENT_REF, sha256=sha256_hex(self.template))
        return accept_template(named, materials, charter=self.charter, revocations=self.revocations, now=self.now)


def test_a_template_that_enough_reviewers_approved_is_accepted() -> None:
    accepted = Case().accept()
    assert accepted.ref == AGENT_REF
    assert accepted.persons == {"alice", "bob"}
    assert accepted.image is not None
    assert accepted.image.persons == {"alice"}
    assert accepted.is_runnable
    assert not accepted.image.is_runnable


def test_it_runs_out_when_the_first_approval_does() -> None:
    soon = Material(resolved=image().to_bytes(), approval=approval(image(), "alice", expires=NOW + DAY))
    assert Case(image=soon).accept().expires == NOW + DAY
    assert Case().accept().expires == NOW + 100 * DAY


def _domain(**changes: object) -> Charter:
    domains = charter().domains
    return charter(domains={**domains, "docs": replace(domains["docs"], **changes)})  # type: ignore[arg-type]


def _approved(*by: str, **changes: object) -> Case:
    return Case(approval=approval(template(), *by, **changes))


def _of(resolved_changes: Mapping[str, Any], *by: str) -> Case:
    changed = template(**resolved_changes)
    return Case(template=changed.to_bytes(), approval=approval(changed, *(by or ("alice", "bob"))))


OTHER_IMAGE = ImagePin(template=IMAGE_REF, sha256="0" * 64, length=len(IMAGE_MODULE))
FOREIGN_IMAGE = ImagePin(
    template=TemplateRef.parse("docs/hardware@1.0.0"), sha256=sha256_hex(HARDWARE_MODULE), length=len(HARDWARE_MODULE)
)
WIDE: dict[str, Any] = {"grants": Grants(kv=KvGrant(namespace="notes", bytes_max=1001))}
HUNGRY: dict[str, Any] = {"limits": replace(DEFAULT_LIMITS, fuel=DEFAULT_LIMITS.fuel + 1)}


def _with_image(pin: ImagePin) -> Case:
    code = template().code
    assert isinstance(code, PinnedSource)
    changed = template(code=replace(code, image=pin))
    return Case(template=changed.to_bytes(), approval=approval(changed, "alice", "bob"))


REFUSALS: dict[str, tuple[Reason, Callable[[], Case]]] = {
    # A1
    "not the digest in the plan": (
        Reason.DIGEST_MISMATCH,
        lambda: Case(template=template(role="x").to_bytes(), entry=entry(template())),
    ),
    "not the template in the plan": (
        Reason.DIGEST_MISMATCH,
        lambda: Case(template=hardware().to_bytes(), entry=PlanEntry(template=AGENT_REF, sha256=hardware().digest)),
    ),
    "not canonical": (Reason.NOT_CANONICAL, lambda: Case(template=template().to_bytes() + b" ")),
    "not a template": (Reason.INVALID_TEMPLATE, lambda: Case(template=b"{}")),
    "not JSON": (Reason.INVALID_DOCUMENT, lambda: Case(template=b"{")),
    "not in the library": (
        Reason.TARGET_MISSING,
        lambda: Case(entry=PlanEntry(template=replace(AGENT_REF, name="other"), sha256="0" * 64)),
    ),
    # A2
    "a domain that the charter does not name": (
        Reason.DOMAIN_UNKNOWN,
        lambda: Case(charter=charter(domains={"images": charter().domains["images"]})),
    ),
    # A3
    "no approval": (Reason.APPROVAL_MISSING, lambda: Case(approval=None)),
    "an approval that is not one": (Reason.APPROVAL_INVALID, lambda: Case(approval=b"{}")),
    "an approval of another version": (
        Reason.APPROVAL_MISMATCH,
        lambda: Case(approval=approval(template(replace(AGENT_REF, version=Version(1, 0, 1))), "alice", "bob")),
    ),
    "an approval of another digest": (
        Reason.APPROVAL_MISMATCH,
        lambda: Case(approval=approval(template(description="other"), "alice", "bob")),
    ),
    "an approval that names another author": (Reason.APPROVAL_MISMATCH, lambda: _approved(author="carol")),
    "an approval for another environment": (Reason.WRONG_ENVIRONMENT, lambda: _approved(environment="staging")),
    "an approval of other grants": (
        Reason.CAPABILITIES_MISMATCH,
        lambda: _approved(capabilities=derive(template(grants=Grants()), report(template()))),
    ),
    "an approval of other limits": (
        Reason.CAPABILITIES_MISMATCH,
        lambda: _approved(capabilities=derive(template(**HUNGRY), report(template()))),
    ),
    "an approval of other code": (
        Reason.CAPABILITIES_MISMATCH,
        lambda: _approved(
            capabilities=replace(derive(template(), report(template())), code=module_code(SOURCE, Abi.COMPONENT))
        ),
    ),
    # A4
    "a signature that does not verify": (
        Reason.SIGNATURE_INVALID,
        lambda: Case(
            approval=replace(
                read_envelope(approval(template(), "alice", "bob")),
                signatures=read_envelope(approval(template(description="other"), "alice", "bob")).signatures,
            ).to_bytes()
        ),
    ),
    # A5
    "one reviewer too few": (Reason.APPROVAL_UNDER_THRESHOLD, lambda: _approved("alice")),
    "the author's own approval": (Reason.APPROVAL_BY_AUTHOR, lambda: _approved("alice", "dave")),
    "a stranger's approval": (Reason.APPROVAL_STRANGER, lambda: _approved("alice", "mallory")),
    "an approval by someone who does not review the domain": (
        Reason.APPROVAL_STRANGER,
        lambda: Case(charter=_domain(reviewers=frozenset({"alice", "carol"}))),
    ),
    "two keys of one person": (
        Reason.APPROVAL_ONE_PERSON,
        lambda: replace(_approved("alice", "alice-2"), charter=charter(persons=persons(alice=["alice", "alice-2"]))),
    ),
    "a revoked reviewer": (
        Reason.APPROVAL_BY_REVOKED,
        lambda: Case(revocations=Revocations(reviewers=frozenset({"bob"}))),
    ),
    "a grant above the ceiling with the ordinary threshold": (
        Reason.APPROVAL_UNDER_THRESHOLD,
        lambda: _of(WIDE),
    ),
    "a limit above the ceiling with the ordinary threshold": (
        Reason.APPROVAL_UNDER_THRESHOLD,
        lambda: _of(HUNGRY),
    ),
    # A6
    "no image": (Reason.IMAGE_MISMATCH, lambda: Case(image=None)),
    "a swapped image": (Reason.IMAGE_MISMATCH, lambda: _with_image(OTHER_IMAGE)),
    "an image of another length": (
        Reason.IMAGE_MISMATCH,
        lambda: _with_image(replace(OTHER_IMAGE, sha256=sha256_hex(IMAGE_MODULE), length=1)),
    ),
    "an image that is no image": (Reason.IMAGE_MISMATCH, lambda: _with_image(FOREIGN_IMAGE)),
    "an image that nobody approved": (
        Reason.APPROVAL_MISSING,
        lambda: Case(image=Material(resolved=image().to_bytes(), approval=None)),
    ),
    "an image that its author approved": (
        Reason.APPROVAL_BY_AUTHOR,
        lambda: Case(
            image=Material(resolved=image(author="alice").to_bytes(), approval=approval(image(author="alice"), "alice"))
        ),
    ),
    "an image without a module": (
        Reason.IMAGE_MISMATCH,
        lambda: Case(
            image=Material(resolved=image(code=None).to_bytes(), approval=approval(image(code=None), "alice"))
        ),
    ),
    # A7
    "an approval that has run out": (Reason.APPROVAL_EXPIRED, lambda: Case(now=NOW + 100 * DAY)),
    "an approval beyond the charter's patience": (
        Reason.APPROVAL_TOO_LONG,
        lambda: Case(charter=charter(approval_days_max=99)),
    ),
    "a revoked template": (
        Reason.TEMPLATE_REVOKED,
        lambda: Case(revocations=Revocations(templates=frozenset({template().digest}))),
    ),
    "a revoked image template": (
        Reason.TEMPLATE_REVOKED,
        lambda: Case(revocations=Revocations(templates=frozenset({image().digest}))),
    ),
    "revoked source": (
        Reason.CODE_REVOKED,
        lambda: Case(revocations=Revocations(modules=frozenset({sha256_hex(SOURCE)}))),
    ),
    "a revoked image": (
        Reason.CODE_REVOKED,
        lambda: Case(revocations=Revocations(modules=frozenset({sha256_hex(IMAGE_MODULE)}))),
    ),
    "a version below the floor": (
        Reason.BELOW_FLOOR,
        lambda: Case(charter=charter(floors={TemplateName.parse("docs/summariser"): Version.parse("1.0.1")})),
    ),
    "an image below the floor": (
        Reason.BELOW_FLOOR,
        lambda: Case(charter=charter(floors={TemplateName.parse("images/cpython"): Version.parse("0.2.0")})),
    ),
}
WITHDRAWS = {
    Reason.APPROVAL_BY_REVOKED,
    Reason.APPROVAL_EXPIRED,
    Reason.APPROVAL_TOO_LONG,
    Reason.TEMPLATE_REVOKED,
    Reason.CODE_REVOKED,
    Reason.BELOW_FLOOR,
}


@pytest.mark.parametrize("name", REFUSALS)
def test_each_refusal_has_its_reason_names_the_template_and_says_what_was_expected(name: str) -> None:
    reason, build = REFUSALS[name]
    with pytest.raises(AgentFactoryError, match="expected") as refusal:
        build().accept()
    assert refusal.value.reason is reason
    assert refusal.value.metadata["template"] in refusal.value.message
    assert isinstance(refusal.value, WithdrawnError) == (reason in WITHDRAWS)


IN_ORDER: dict[str, Callable[[], Case]] = {
    "at the floor": lambda: Case(
        charter=charter(floors={TemplateName.parse("docs/summariser"): Version.parse("1.0.0")})
    ),
    "approved for as long as the charter allows": lambda: Case(charter=charter(approval_days_max=100)),
    "in its last second": lambda: Case(now=NOW + 100 * DAY - timedelta(seconds=1)),
    "above the ceiling with the higher threshold": lambda: _of(WIDE, "alice", "bob", "carol"),
    "at the ceiling": lambda: _of({"grants": Grants(kv=KvGrant(namespace="anything", bytes_max=1000))}),
    "without a ceiling": lambda: replace(_of(WIDE), charter=_domain(ceiling=None, threshold_above_ceiling=None)),
    "with a stranger beside enough reviewers": lambda: _approved("alice", "bob", "mallory"),
    "with the author beside enough reviewers": lambda: _approved("alice", "bob", "dave"),
    "with someone else revoked": lambda: Case(revocations=Revocations(reviewers=frozenset({"carol"}))),
    "by its author alone where the charter says so": lambda: replace(
        _approved("dave"),
        charter=charter(
            mode=Mode.DEVELOPMENT,
            domains={
                "docs": Domain(reviewers=frozenset({"dave"}), threshold=1, self_review=True),
                "images": charter().domains["images"],
            },
        ),
    ),
}


@pytest.mark.parametrize("name", IN_ORDER)
def test_what_is_just_within_the_rules_is_accepted(name: str) -> None:
    assert IN_ORDER[name]().accept().ref == AGENT_REF


def test_a_tally_tells_who_counts_and_why_others_do_not() -> None:
    envelope = read_envelope(approval(template(**WIDE), "alice", "bob", "dave", "mallory"))
    count = tally(envelope, charter(), Revocations(reviewers=frozenset({"bob"})))
    assert count.counted == {"alice"}
    assert count.needed == 3
    assert not count.is_reached
    assert count.not_counted == {
        "bob": "revoked",
        "dave": "author",
        signer("mallory").public_key.keyid: "not in the charter",
    }
    assert "1000" in count.above_ceiling[0]


def test_a_refusal_tells_people_who_does_not_count() -> None:
    with pytest.raises(AgentFactoryError, match=r"got 1 \(alice\); dave does not count: author"):
        _approved("alice", "dave").accept()


def test_revocations_add_up_and_only_the_charter_lifts_them() -> None:
    kept, planned = Revocations(nodes=frozenset({"n1"})), Revocations(nodes=frozenset({"n2"}))
    lifting = charter(revocations=Revocations(nodes=frozenset({"n3"})), lifted=planned)
    assert effective_revocations(lifting, kept, planned).nodes == {"n1", "n3"}


def test_a_template_is_cleared_when_its_code_can_do_what_was_approved() -> None:
    accepted = Case().accept()
    assert check_capabilities(accepted, derive(template(), report(template()))).accepted is accepted


def test_code_that_can_do_something_else_is_refused() -> None:
    found = report(hardware())
    assert found is not None
    materials = {
        hardware().ref: Material(resolved=hardware().to_bytes(), approval=approval(hardware(), "alice", "bob"))
    }
    accepted = accept_template(entry(hardware()), materials, charter=charter(), revocations=NO_REVOCATIONS, now=NOW)
    derived = derive(hardware(), replace(found, imports=("wasi_snapshot_preview1.fd_read",)))
    with pytest.raises(AgentFactoryError, match="imports") as refusal:
        check_capabilities(accepted, derived)
    assert refusal.value.reason is Reason.CAPABILITIES_MISMATCH


_KEYS = ("alice", "alice-2", "bob", "carol", "dave", "mallory")


@settings(max_examples=60, deadline=None)
@given(by=st.sets(st.sampled_from(_KEYS), min_size=1), revoked=st.sets(st.sampled_from(["alice", "bob", "carol"])))
def test_exactly_a_threshold_of_distinct_unrevoked_reviewers_other_than_the_author_is_enough(
    by: set[str], revoked: set[str]
) -> None:
    case = replace(
        _approved(*sorted(by)),
        charter=charter(persons=persons(alice=["alice", "alice-2"])),
        revocations=Revocations(reviewers=frozenset(revoked)),
        image=Material(resolved=image().to_bytes(), approval=approval(image(), "alice", "bob", "carol")),
    )
    count = {name.removesuffix("-2") for name in by} - {"dave", "mallory"} - revoked
    if len(count) >= 2:
        assert case.accept().persons == count
    else:
        with pytest.raises(AgentFactoryError):
            case.accept()
