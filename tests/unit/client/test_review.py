"""A control plane that lies to reviewers: what they see is what the charter's persons approved, or nothing is shown."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from agentfactory.admin.v1 import admin_pb2 as pb

from client.active_templates import CharterBehindError, verify_active
from client.inspection_cache import InspectionCache
from client.review import Review, ReviewMismatchError, derive_review
from templates.canonical import sha256_hex
from templates.capabilities import derive
from templates.charter import SecretBinding
from templates.document import read_template
from templates.fleets import fleets
from templates.grants import Grants, HttpGrant, HttpInjection
from templates.inheritance import resolve
from templates.names import TemplatePattern, TemplateRef
from templates.reasons import AgentFactoryError
from templates.resolved import BlobPin, ImagePin, PinnedSource, ResolvedTemplate
from templates.revocations import Revocations
from templates.trusted_set import Accepted
from tests.trust_world import (
    DAY,
    IMAGE_MODULE,
    IMAGE_REF,
    NOW,
    World,
    approval,
    charter,
    entry,
    image,
    ready_world,
    report,
    root,
    statement,
    template,
)

BENIGN, HOSTILE = b"def process(text):\n    return text\n", b"def process(text):\n    return 'stolen'\n"


def _resolved(version: str, source: bytes, **fields: object) -> tuple[bytes, ResolvedTemplate]:
    document = json.dumps(
        {
            "schema": 1,
            "domain": "docs",
            "name": "summariser",
            "version": version,
            "role": "tester",
            "description": "d",
            "code": {"source": "agent.py", "image": "cpython"},
            **fields,
        }
    ).encode()
    code = PinnedSource(
        source=BlobPin(sha256=sha256_hex(source), length=len(source)),
        file="agent.py",
        image=ImagePin(template=IMAGE_REF, sha256=sha256_hex(IMAGE_MODULE), length=len(IMAGE_MODULE)),
    )
    return document, resolve(read_template(document), (), author="dave", code=code)


@pytest.fixture
def reports(tmp_path: Path) -> InspectionCache:
    facts = report(image())
    assert facts is not None
    (tmp_path / f"{sha256_hex(IMAGE_MODULE)}.report.json").write_text(json.dumps(facts.to_json()))
    return InspectionCache(tmp_path)


class Offer:
    """What a control plane sends for one change; a test changes what it lies about."""

    def __init__(self, **fields: object) -> None:
        self.document, self.change = _resolved("1.1.0", HOSTILE, **fields)
        _, self.active = _resolved("1.0.0", BENIGN)
        self.active_approval = approval(self.active, "alice", "bob")
        self.expires = NOW + 100 * DAY
        self.created = NOW
        self.charter = charter()
        self.others: list[tuple[ResolvedTemplate, tuple[str, ...]]] = []
        self.active_is_sent = True
        self.planned: ResolvedTemplate | None = None

    def present(self) -> Accepted:
        """Return what is active: the version compared with, unless the test says otherwise, and the others."""
        world = World()
        world.add(image(), approval(image(), "alice"), active=False)
        planned = self.planned or self.active
        for each, by in ((planned, ("alice", "bob")), *self.others):
            world.add(each, approval(each, *by))
        return verify_active(world.publish().bundle(), root=world.roots[0], charter=charter(), now=NOW)

    def derived(self, reports: InspectionCache) -> Review:
        header = pb.ChangeHeader(
            document=self.document,
            resolved=self.change.to_bytes(),
            image=image().to_bytes(),
            active=self.active.to_bytes() if self.active_is_sent else b"",
            active_image=image().to_bytes(),
            active_approval=self.active_approval,
        )
        header.change.statement = replace(
            statement(self.change), capabilities=derive(self.change, report(self.change)), expires=self.expires
        ).to_payload()
        header.change.create_time.FromDatetime(self.created)
        blobs = {sha256_hex(source): source for source in (BENIGN, HOSTILE)}
        return derive_review(
            "changes/7", header, blobs, present=self.present(), charter=self.charter, reports=reports, now=NOW
        )


def test_a_change_is_compared_with_what_was_approved(reports: InspectionCache) -> None:
    found = Offer().derived(reports)
    assert found.active is not None
    assert "-    return text" in found.source_diff
    assert "+    return 'stolen'" in found.source_diff


def test_nobody_is_shown_a_change_beside_an_active_version_that_nobody_approved(reports: InspectionCache) -> None:
    """With the change's own source as what is active, nothing would seem to change."""
    offer = Offer()
    _, offer.active = _resolved("1.0.0", HOSTILE)
    with pytest.raises(ReviewMismatchError, match="approved"):
        offer.derived(reports)


def test_an_active_version_needs_its_approval(reports: InspectionCache) -> None:
    offer = Offer()
    offer.active_approval = b""
    with pytest.raises(AgentFactoryError):
        offer.derived(reports)


@pytest.mark.parametrize("by", [("alice",), ("dave", "alice"), ("mallory", "eve")])
def test_an_active_version_under_its_threshold_was_not_approved(by: tuple[str, ...], reports: InspectionCache) -> None:
    offer = Offer()
    offer.active_approval = approval(offer.active, *by)
    with pytest.raises(ReviewMismatchError, match="approved"):
        offer.derived(reports)


def test_an_approval_by_somebody_whom_the_charter_revoked_counts_for_nothing(reports: InspectionCache) -> None:
    offer = Offer()
    offer.charter = charter(revocations=Revocations(reviewers=frozenset({"bob"})))
    with pytest.raises(ReviewMismatchError, match="approved"):
        offer.derived(reports)


def test_an_approval_for_another_environment_counts_for_nothing(reports: InspectionCache) -> None:
    offer = Offer()
    offer.active_approval = approval(offer.active, "alice", "bob", environment="staging")
    with pytest.raises(ReviewMismatchError, match="approved"):
        offer.derived(reports)


def test_the_version_compared_with_is_one_of_the_same_template(reports: InspectionCache) -> None:
    offer = Offer()
    _, offer.active = _resolved("1.0.0", BENIGN, name="other")
    offer.active_approval = approval(offer.active, "alice", "bob")
    with pytest.raises(ReviewMismatchError, match="docs/summariser"):
        offer.derived(reports)


@pytest.mark.parametrize("created", [NOW, NOW + 3_000 * DAY])
def test_an_approval_ends_within_the_charters_days_of_this_machines_clock(
    created: object, reports: InspectionCache
) -> None:
    """A change that claims to be from the future would be approved for years."""
    offer = Offer()
    offer.created = created  # type: ignore[assignment]
    offer.expires = NOW + (offer.charter.approval_days_max + 2) * DAY
    with pytest.raises(ReviewMismatchError, match="approval_days_max"):
        offer.derived(reports)


def test_an_approval_of_as_many_days_as_the_charter_allows_is_signed(reports: InspectionCache) -> None:
    offer = Offer()
    offer.expires = NOW + timedelta(days=offer.charter.approval_days_max)
    assert offer.derived(reports).statement.expires == offer.expires


def test_what_is_configured_and_said_is_shown_too(reports: InspectionCache) -> None:
    """Neither configuration nor schemas are rights, and both are signed."""
    offer = Offer(default_config={"forward_to": "https://evil.example"}, description="another one")
    text = offer.derived(reports).describe()
    assert '+  "default_config": {' in text
    assert '+    "forward_to": "https://evil.example"' in text
    assert '-  "description": "d"' in text


def test_a_secret_that_the_charter_does_not_bind_is_said_before_anybody_approves(reports: InspectionCache) -> None:
    grant = {
        "binding": "api",
        "origin": "https://api.example",
        "methods": ["GET"],
        "path_prefixes": ["/"],
        "inject": {"header": "X-Key", "secret": "api-token"},
    }
    offer = Offer(grants={"http": [grant]})
    found = offer.derived(reports)
    assert found.warnings == ("api: the secret api-token will not be sent: the charter does not bind it",)
    assert found.warnings[0] in found.describe()
    assert found.to_json()["warnings"] == [*found.warnings]
    binding = SecretBinding(
        origin="https://api.example",
        header="x-key",
        path_prefixes=("/",),
        methods=("GET",),
        templates=(TemplatePattern.parse("docs/*"),),
    )
    for bound, warning in (
        (binding, ""),
        (replace(binding, origin="https://other.example"), "another origin"),
        (replace(binding, header="Authorization"), "another header"),
        (replace(binding, templates=(TemplatePattern.parse("code/*"),)), "for docs/summariser"),
    ):
        offer.charter = charter(secret_bindings={"api-token": bound})
        assert [warning in each for each in offer.derived(reports).warnings] == ([True] if warning else [])
    assert "will not work" not in Offer().derived(reports).describe()


FETCHER = template(
    TemplateRef.parse("docs/fetcher@1.0.0"),
    callers=(TemplatePattern.parse("docs/summariser"), TemplatePattern.parse("docs/middle")),
    grants=Grants(
        http=(
            HttpGrant(
                binding="api",
                origin="https://api.example",
                methods=("GET",),
                path_prefixes=("/",),
                inject=HttpInjection(header="X-Key", secret="api-token"),
            ),
        )
    ),
)
MIDDLE = template(
    TemplateRef.parse("docs/middle@2.0.0"),
    callers=(TemplatePattern.parse("docs/*"),),
    grants=Grants(agents=(TemplatePattern.parse("docs/fetcher"),)),
)
THREE = ("alice", "bob", "carol")


def test_what_a_change_gains_through_agents_is_shown_with_what_those_may_do(reports: InspectionCache) -> None:
    offer = Offer(grants={"agents": ["docs/middle"]})
    offer.others = [(MIDDLE, THREE), (FETCHER, THREE)]
    found = offer.derived(reports)
    assert found.widens
    shown = found.to_json()
    assert shown["through_agents"] == [
        {"template": "docs/middle@2.0.0", "via": [], "depth": 1, "grants": {"agents": ["docs/fetcher"]}},
        {
            "template": "docs/fetcher@1.0.0",
            "via": ["docs/middle@2.0.0"],
            "depth": 2,
            "grants": FETCHER.grants.to_json(),
        },
    ]
    assert {
        "direction": "widened",
        "subject": "/through_agents/docs~1fetcher/grants/http/api",
        "old": "",
        "new": "GET https://api.example below /, X-Key from the secret api-token",
    } in shown["differences_through_agents"]
    text = found.describe()
    assert "docs/fetcher@1.0.0, via docs/middle@2.0.0" in text
    assert "widened   through_agents/docs/fetcher: - → docs/fetcher@1.0.0 via docs/middle@2.0.0" in text


def test_what_an_approval_signs_does_not_depend_on_others(reports: InspectionCache) -> None:
    alone, among = Offer(grants={"agents": ["docs/middle"]}), Offer(grants={"agents": ["docs/middle"]})
    among.others = [(MIDDLE, THREE), (FETCHER, THREE)]
    assert alone.derived(reports).payload == among.derived(reports).payload


def test_the_reviewer_of_a_callee_sees_who_gains(reports: InspectionCache) -> None:
    offer = Offer(callers=["docs/middle"], grants={"kv": {"namespace": "notes", "bytes_max": 5}})
    caller = replace(MIDDLE, grants=Grants(agents=(TemplatePattern.parse("docs/summariser"),)))
    above = template(
        TemplateRef.parse("docs/above@1.0.0"), grants=Grants(agents=(TemplatePattern.parse("docs/middle"),))
    )
    offer.others = [(caller, THREE), (above, THREE)]
    found = offer.derived(reports)
    assert found.to_json()["reached_by"] == [
        {"template": "docs/middle@2.0.0", "via": [], "new": True},
        {"template": "docs/above@1.0.0", "via": ["docs/middle@2.0.0"], "new": True},
    ]
    assert "Who gains by it" in found.describe()
    assert "docs/above@1.0.0, via docs/middle@2.0.0, not before" in found.describe()
    assert "active templates" not in Offer().derived(reports).describe()


def test_a_neighbour_that_nobody_approved_stops_the_review(reports: InspectionCache) -> None:
    """A forged wide neighbour beside both versions would hide what the change gains."""
    offer = Offer(grants={"agents": ["docs/middle"]})
    offer.others = [(MIDDLE, ("alice",))]
    with pytest.raises(AgentFactoryError, match="docs/middle"):
        offer.derived(reports)


def test_a_change_is_compared_with_the_version_that_the_plan_names(reports: InspectionCache) -> None:
    """An older version that was approved with more rights would make the change look small."""
    offer = Offer()
    _, offer.planned = _resolved("1.0.1", BENIGN)
    with pytest.raises(ReviewMismatchError, match=r"docs/summariser@1\.0\.1.*got docs/summariser@1\.0\.0"):
        offer.derived(reports)
    offer.planned, offer.active_is_sent = offer.active, False
    with pytest.raises(ReviewMismatchError, match="got none"):
        offer.derived(reports)


def test_a_generation_under_an_older_charter_than_this_machines_is_not_believed() -> None:
    bundle = ready_world().publish().bundle()
    with pytest.raises(CharterBehindError, match="charter 2"):
        verify_active(bundle, root=root(), charter=charter(version=2), now=NOW)


def test_a_generation_of_another_root_or_out_of_its_lease_is_not_believed() -> None:
    bundle = ready_world().publish().bundle()
    with pytest.raises(AgentFactoryError):
        verify_active(bundle, root=root("mallory-a", "mallory-b"), charter=charter(), now=NOW)
    with pytest.raises(AgentFactoryError, match="timestamp"):
        verify_active(bundle, root=root(), charter=charter(), now=NOW + DAY)


def test_what_runs_together_is_told_by_node_and_without_what_was_withdrawn() -> None:
    world = World()
    world.add(image(), approval(image(), "alice"), active=False)
    world.add(FETCHER, approval(FETCHER, *THREE))
    world.add(MIDDLE, approval(MIDDLE, *THREE))
    newer = replace(FETCHER, ref=TemplateRef.parse("docs/fetcher@1.1.0"))
    world.add(newer, approval(newer, *THREE), active=False)
    world.plan = replace(
        world.plan,
        entries=(*world.plan.entries, entry(newer, "n1", "n2")),
        revocations=Revocations(templates=frozenset({MIDDLE.digest})),
    )
    present = verify_active(world.publish().bundle(), root=world.roots[0], charter=charter(), now=NOW)
    assert [[str(each.ref) for each in fleet] for fleet in fleets(present)] == [
        ["docs/fetcher@1.0.0"],
        ["docs/fetcher@1.1.0"],
    ]
