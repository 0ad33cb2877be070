"""Admission policies in a real factory: submitted, reviewed, in force, put aside by two persons, and never instead of
the quorum."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.factory import ECHO, Factory, running_factory, write_template

ADMIT = '@id("admit")\npermit (principal, action, resource);\n\n'
WHY = "payments are down, fix first"


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Factory]:
    with running_factory(tmp_path_factory.mktemp("governed") / "installation", "--threshold", "2") as factory:
        yield factory


def published(factory: Factory, folder: Path, name: str, **fields: Any) -> str:
    """Submit a template of the domain software, which needs bob and carol; return its change."""
    submitted = factory.ctl(
        "template", "publish", str(write_template(folder / name, name, ECHO, domain="software", **fields))
    )
    assert submitted.status == 10, submitted.errors
    return str(submitted.data[0]["change"])


def test_policies_from_a_file_to_a_refusal_and_past_it_with_a_broken_glass(factory: Factory, tmp_path: Path) -> None:
    end = datetime.now(UTC) + timedelta(hours=2)
    text = (
        ADMIT + '@id("team-label") @place("/labels/team") @message("say whose it is")\n'
        'forbid (principal, action == Action::"submit", resource) unless { resource.hasTag("team") };\n\n'
        '@id("freeze")\nforbid (principal, action == Action::"activate", resource)\n'
        f'when {{ context.now < datetime("{end:%Y-%m-%dT%H:%M:%SZ}") }};\n'
    )
    file = tmp_path / "admission.cedar"
    file.write_text(text)
    assert factory.ctl("policy", "show").data["policies"] == "built-in defaults"
    assert factory.ctl("policy", "check", str(file)).status == 0

    submitted = factory.ctl("policy", "submit", str(file), "--version", "1.0.0")
    assert submitted.status == 10, submitted.errors
    change = submitted.data[0]["change"]
    shown = factory.ctl("--as", "bob", "change", "show", change)
    assert shown.status == 1  # against the defaults, some of which it drops
    directions = {each["subject"]: each["direction"] for each in shown.data["differences"]}
    assert directions["/policies/freeze"] == "narrowed"
    assert directions["/policies/no-secrets-for-everyone"] == "widened"
    assert '+@id("freeze")' in shown.data["source_diff"]
    assert factory.ctl("--as", "bob", "change", "approve", change, "--yes").status == 10
    approved = factory.ctl("--as", "carol", "change", "approve", change, "--yes")
    assert (approved.status, approved.data["state"]) == (0, "APPROVED"), approved.errors
    standing = factory.ctl("policy", "show").data
    assert (standing["policies"], standing["approvers"]) == ("policies/admission@1.0.0", ["bob", "carol"])
    assert standing["files"] == {"admission.cedar": text}

    bare = write_template(tmp_path / "bare", "bare", ECHO, domain="software")
    refused = factory.ctl("template", "publish", str(bare))
    assert refused.status == 5
    assert "POLICY_DENIED" in refused.errors
    assert "team-label at /labels/team: say whose it is" in refused.errors

    change = published(factory, tmp_path, "labelled", labels={"team": "tools"})
    explained = factory.ctl("policy", "explain", change)
    assert explained.status == 1
    assert [each["policy"] for each in explained.data["denials"]] == ["freeze"]
    case = tmp_path / "freeze.cases.json"
    case.write_text(json.dumps({"cases": [explained.data["case"]]}))
    assert factory.ctl("policy", "test", str(file), str(case)).status == 0
    after = f"{end + timedelta(minutes=1):%Y-%m-%dT%H:%M:%SZ}"
    assert factory.ctl("policy", "explain", change, "--at", after).status == 0
    assert factory.ctl("policy", "explain", change, "--broken-glass").data["overridden"][0]["policy"] == "freeze"
    assert factory.ctl("policy", "explain", change, "--action", "approve").status == 0

    opened = factory.ctl("--as", "bob", "policy", "break-glass", "open", "software/labelled@1.0.0", "--reason", WHY)
    assert (opened.status, opened.data["state"]) == (10, "WAITING")
    name = opened.data["name"]
    alone = factory.ctl("--as", "bob", "policy", "break-glass", "confirm", name)
    assert alone.status == 5
    assert "BREAK_GLASS_REFUSED" in alone.errors
    assert factory.ctl("--as", "alice", "policy", "break-glass", "confirm", name).status == 5  # she does not review it

    assert factory.ctl("--as", "bob", "change", "approve", change, "--yes").status == 10
    held = factory.ctl("--as", "carol", "change", "approve", change, "--yes")
    assert held.status == 5
    assert "freeze" in held.errors

    confirmed = factory.ctl("--as", "carol", "policy", "break-glass", "confirm", name)
    assert (confirmed.status, confirmed.data["state"]) == (0, "OPEN")
    done = factory.ctl("--as", "carol", "change", "approve", change, "--yes")
    assert (done.status, done.data["state"]) == (0, "ACTIVE"), done.errors
    factory.wait_active(done.data["generation"])
    (glass,) = factory.ctl("policy", "break-glass", "list").data
    assert [(use["action"], use["policies"]) for use in glass["uses"]] == [("activate", ["freeze"])]
    assert factory.ctl("agent", "invoke", "software/labelled", "-", stdin="through").data["output"] == "through"
    assert factory.ctl("--as", "bob", "policy", "break-glass", "close", name).data["state"] == "CLOSED"

    other = published(factory, tmp_path, "other", labels={"team": "tools"})
    opened = factory.ctl("--as", "bob", "policy", "break-glass", "open", "software/other@1.0.0", "--reason", WHY)
    assert factory.ctl("--as", "carol", "policy", "break-glass", "confirm", opened.data["name"]).status == 0
    one = factory.ctl("--as", "bob", "change", "approve", other, "--yes")
    assert (one.status, one.data["state"], one.data["approvers"]) == (10, "IN_REVIEW", ["bob"])


def test_a_reviewer_is_told_of_a_denial_that_the_control_plane_left_out(factory: Factory, tmp_path: Path) -> None:
    """Signing is refused by this machine's own question, before anything is sent."""
    text = ADMIT + '@id("not-carol") forbid (principal == Person::"carol", action == Action::"approve", resource);\n'
    file = tmp_path / "admission.cedar"
    file.write_text(text)
    change = factory.ctl("policy", "submit", str(file), "--version", "2.0.0").data[0]["change"]
    for reviewer in ("bob", "carol"):
        factory.ctl("--as", reviewer, "change", "approve", change, "--yes")
    change = published(factory, tmp_path, "third")
    shown = factory.ctl("--as", "carol", "change", "show", change)
    answers = {each["action"]: each["decision"] for each in shown.data["admission"]["answers"]}
    assert answers == {"submit": "allow", "approve": "deny", "activate": "allow"}
    refused = factory.ctl("--as", "carol", "change", "approve", change, "--yes")
    assert refused.status == 5
    assert "not-carol" in refused.errors
    insisted = factory.ctl("--as", "carol", "change", "approve", change, "--yes", "--break-glass")
    assert insisted.status == 5  # the control plane asks, too
    assert factory.ctl("--as", "bob", "change", "approve", change, "--yes").status == 10
