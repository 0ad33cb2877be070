"""agentctl and the life of a version: drafts, who is waited for, comments, history, and exit codes that scripts use."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.factory import ECHO, Factory, running_factory, write_template


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Factory]:
    with running_factory(tmp_path_factory.mktemp("factory") / "installation") as factory:
        yield factory


def listed(factory: Factory, *arguments: str, person: str = "alice") -> dict[str, dict[str, Any]]:
    done = factory.ctl("--as", person, "change", "list", *arguments)
    assert done.status == 0, done.errors
    return {one["change"]: one for one in done.data}


def test_from_a_draft_to_a_deprecated_version(factory: Factory, tmp_path: Path) -> None:
    template = write_template(tmp_path, "life", ECHO, domain="documentation")
    drafted = factory.ctl("template", "publish", str(template), "--draft")
    assert (drafted.status, drafted.data[0]["state"]) == (0, "DRAFT")
    name = drafted.data[0]["change"]
    assert name in listed(factory, "--waiting-for", "me")
    assert name not in listed(factory, "--waiting-for", "me", person="bob")
    assert factory.ctl("--as", "bob", "change", "submit", name).status == 5, "it is alice's"

    tried = factory.ctl("change", "submit", name, "--validate-only")
    assert (tried.status, tried.data["state"]) == (0, "IN_REVIEW")
    sent = factory.ctl("change", "submit", name)
    assert (sent.status, sent.data["state"]) == (10, "IN_REVIEW"), sent.errors
    assert listed(factory, "--waiting-for", "me", person="bob")[name]["waiting_for"] == ["bob", "carol"]
    assert factory.ctl("change", "submit", name).status == 6

    number = str(uuid.uuid4())
    say = ("--as", "carol", "change", "comment", name, "-", "--request-id", number)
    for _ in range(2):
        said = factory.ctl(*say, stdin="two lines,\none comment")
        assert said.status == 0, said.errors
    stale = factory.ctl("change", "withdraw", name, "--etag", sent.data["etag"])
    assert (stale.status, "ETAG_MISMATCH" in stale.errors) == (6, True)

    approved = factory.ctl("--as", "bob", "change", "approve", name, "--yes")
    assert approved.status == 0, approved.errors
    factory.wait_active(approved.data["generation"])
    old = factory.ctl("--as", "bob", "change", "deprecate", name, "--reason", "use documentation/better")
    assert (old.data["state"], old.data["planned"]) == ("DEPRECATED", True)
    answer = factory.ctl("agent", "invoke", "documentation/life", "x")
    assert answer.status == 0, "nodes know nothing of it"
    assert listed(factory, "--state", "deprecated")[name]["state_reason"] == "bob: use documentation/better"
    assert factory.ctl("change", "restore", name).data["state"] == "ACTIVE"

    history = factory.ctl("change", "history", name).data
    assert [(one["person"], one["action"], one["after"]) for one in history] == [
        ("alice", "DRAFT", "DRAFT"),
        ("alice", "SUBMIT", "IN_REVIEW"),
        ("carol", "COMMENT", "IN_REVIEW"),
        ("bob", "APPROVE", "ACTIVE"),
        ("bob", "DEPRECATE", "DEPRECATED"),
        ("alice", "RESTORE", "ACTIVE"),
    ]
    assert history[2]["text"] == "two lines,\none comment"


def test_rejected_and_withdrawn_versions_are_free_again(factory: Factory, tmp_path: Path) -> None:
    template = write_template(tmp_path, "again", ECHO, domain="documentation")
    first = factory.ctl("template", "publish", str(template)).data[0]["change"]
    rejected = factory.ctl("--as", "bob", "change", "reject", first, "--reason", "too greedy")
    assert (rejected.data["state"], rejected.data["state_reason"]) == ("REJECTED", "bob: too greedy")
    second = factory.ctl("template", "publish", str(template))
    assert second.status == 10
    name = second.data[0]["change"]
    assert name != first
    foreign = factory.ctl("--as", "bob", "change", "withdraw", name)
    assert (foreign.status, "PERMISSION_DENIED" in foreign.errors) == (5, True)
    assert factory.ctl("change", "withdraw", name, "--reason", "not yet").data["state"] == "WITHDRAWN"
    assert name not in listed(factory, "--waiting-for", "bob")
    assert factory.ctl("change", "deprecate", name, "--reason", "x").status == 6
    assert factory.ctl("template", "publish", str(template)).data[0]["change"] not in {first, name}


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("change", "reject", "1"), 2, ["--reason"]),
        (("change", "withdraw", "4711"), 4, ["CHANGE_UNKNOWN"]),
        (("change", "comment", "4711", "x"), 4, ["CHANGE_UNKNOWN"]),
        (("change", "withdraw", "1", "--request-id", "x"), 2, ["--request-id"]),
        (("change", "withdraw", "1", "--request-id", str(uuid.uuid1())), 3, ["INVALID_REQUEST", "UUID4"]),
        (("change", "history", "none"), 4, ["CHANGE_UNKNOWN"]),
        (("change", "list", "--state", "closed"), 2, ["--state"]),
    ],
)
def test_refusals_say_what_and_where(
    factory: Factory, arguments: tuple[str, ...], status: int, words: list[str]
) -> None:
    done = factory.ctl(*arguments)
    assert done.status == status, done.errors
    for word in words:
        assert word in done.errors


def test_only_trying_changes_nothing(factory: Factory, tmp_path: Path) -> None:
    template = write_template(tmp_path, "tried", ECHO)
    name = factory.ctl("template", "publish", str(template)).data[0]["change"]
    before = listed(factory)
    tried = factory.ctl("change", "approve", name, "--yes", "--validate-only")
    assert (tried.status, tried.data["state"]) == (0, "ACTIVE"), tried.errors
    assert "nothing is changed" in tried.errors
    assert factory.ctl("change", "reject", name, "--reason", "x", "--validate-only").status == 0
    assert factory.ctl("revoke", "reviewer", "bob", "--reason", "x", "--validate-only").status == 0
    assert listed(factory) == before
