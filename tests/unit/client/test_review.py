"""A control plane that lies to reviewers: what they see is what the charter's persons approved, or nothing is shown."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from agentfactory.admin.v1 import admin_pb2 as pb

from client.inspection_cache import InspectionCache
from client.review import Review, ReviewMismatchError, derive_review
from templates.canonical import sha256_hex
from templates.capabilities import derive
from templates.charter import SecretBinding
from templates.document import read_template
from templates.inheritance import resolve
from templates.names import TemplatePattern
from templates.reasons import AgentFactoryError
from templates.resolved import BlobPin, ImagePin, PinnedSource, ResolvedTemplate
from templates.revocations import Revocations
from tests.trust_world import (
    DAY,
    IMAGE_MODULE,
    IMAGE_REF,
    NOW,
    approval,
    charter,
    image,
    report,
    statement,
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

    def derived(self, reports: InspectionCache) -> Review:
        header = pb.ChangeHeader(
            document=self.document,
            resolved=self.change.to_bytes(),
            image=image().to_bytes(),
            active=self.active.to_bytes(),
            active_image=image().to_bytes(),
            active_approval=self.active_approval,
        )
        header.change.statement = replace(
            statement(self.change), capabilities=derive(self.change, report(self.change)), expires=self.expires
        ).to_payload()
        header.change.create_time.FromDatetime(self.created)
        blobs = {sha256_hex(source): source for source in (BENIGN, HOSTILE)}
        return derive_review("changes/7", header, blobs, charter=self.charter, reports=reports, now=NOW)


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
