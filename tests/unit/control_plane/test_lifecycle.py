"""Every cell of the lifecycle's table, one case each: what it leads to, who may, and that nothing else is in it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from control_plane import review
from control_plane.lifecycle import (
    OPEN,
    PLACED,
    ROLE,
    TABLE,
    Action,
    ChangeState,
    Standing,
    TransitionRefusedError,
    placing,
    require_transition,
    rule_for,
    states_for,
)
from control_plane.review import COMMENT_CHARACTERS_MAX, ApprovalRefusedError, Change, NotAllowedError
from templates.acceptance import Tally
from templates.charter import Charter, Domain
from templates.names import TemplateRef
from templates.reasons import AgentFactoryError, Reason
from templates.revocations import NO_REVOCATIONS, Revocations
from tests.installation import LocalInstallation
from tests.unit.control_plane.world import World, document

NOW = datetime(2030, 1, 1, tzinfo=UTC)

# Written by hand, apart from the table: state → action → (states that follow, who may).
EXPECTED: dict[str, dict[str, tuple[str, str]]] = {
    "-": {"DRAFT": ("DRAFT", "PERSON"), "SUBMIT": ("IN_REVIEW", "PERSON")},
    "DRAFT": {
        "SUBMIT": ("IN_REVIEW", "AUTHOR"),
        "REPLACE": ("WITHDRAWN", "AUTHOR"),
        "WITHDRAW": ("WITHDRAWN", "AUTHOR"),
        "COMMENT": ("DRAFT", "PERSON"),
        "REVOKE": ("REVOKED", "REVIEWER"),
    },
    "IN_REVIEW": {
        "APPROVE": ("ACTIVE APPROVED IN_REVIEW SUPERSEDED", "REVIEWER"),
        "REJECT": ("REJECTED", "AUTHOR REVIEWER"),
        "WITHDRAW": ("WITHDRAWN", "AUTHOR"),
        "COMMENT": ("IN_REVIEW", "PERSON"),
        "REVOKE": ("REVOKED", "REVIEWER"),
    },
    "APPROVED": {
        "PLACE": ("ACTIVE APPROVED SUPERSEDED", "PLAN"),
        "DEPRECATE": ("DEPRECATED", "AUTHOR REVIEWER"),
        "COMMENT": ("APPROVED", "PERSON"),
        "REVOKE": ("REVOKED", "REVIEWER"),
    },
    "ACTIVE": {
        "PLACE": ("ACTIVE APPROVED SUPERSEDED", "PLAN"),
        "DEPRECATE": ("DEPRECATED", "AUTHOR REVIEWER"),
        "COMMENT": ("ACTIVE", "PERSON"),
        "REVOKE": ("REVOKED", "REVIEWER"),
    },
    "SUPERSEDED": {
        "PLACE": ("ACTIVE APPROVED SUPERSEDED", "PLAN"),
        "DEPRECATE": ("DEPRECATED", "AUTHOR REVIEWER"),
        "COMMENT": ("SUPERSEDED", "PERSON"),
        "REVOKE": ("REVOKED", "REVIEWER"),
    },
    "DEPRECATED": {
        "RESTORE": ("ACTIVE APPROVED SUPERSEDED", "AUTHOR REVIEWER"),
        "COMMENT": ("DEPRECATED", "PERSON"),
        "REVOKE": ("REVOKED", "REVIEWER"),
    },
    "REVOKED": {"COMMENT": ("REVOKED", "PERSON"), "LIFT": ("ACTIVE APPROVED SUPERSEDED", "CHARTER")},
    "REJECTED": {"COMMENT": ("REJECTED", "PERSON")},
    "WITHDRAWN": {"COMMENT": ("WITHDRAWN", "PERSON")},
}
STATES: list[ChangeState | None] = [None, *ChangeState]
CELLS = [(state, action) for state in STATES for action in Action]


@pytest.mark.parametrize(("state", "action"), CELLS, ids=[f"{state or '-'} {action}" for state, action in CELLS])
def test_each_cell(state: ChangeState | None, action: Action) -> None:
    expected = EXPECTED[str(state or "-")].get(str(action))
    if expected is None:
        with pytest.raises(TransitionRefusedError) as refused:
            rule_for(state, action, name="changes/1")
        is_over = state not in {None, *OPEN} and str(action) in {"SUBMIT", "APPROVE", "REJECT", "WITHDRAW", "REPLACE"}
        assert refused.value.reason is (Reason.CHANGE_CLOSED if is_over else Reason.CHANGE_STATE)
        assert refused.value.metadata == {"state": str(state or ""), "action": str(action)}
        for after in ChangeState:
            with pytest.raises(TransitionRefusedError):
                require_transition(state, action, after, name="changes/1")
        return
    rule = rule_for(state, action, name="changes/1")
    assert " ".join(sorted(rule.to)) == expected[0]
    assert " ".join(sorted(rule.by)) == expected[1]
    assert rule.needs_reason is (action in {Action.REJECT, Action.DEPRECATE})
    for after in ChangeState:
        if after in rule.to:
            require_transition(state, action, after, name="changes/1")
        else:
            with pytest.raises(TransitionRefusedError):
                require_transition(state, action, after, name="changes/1")


def test_every_standing_of_a_person_needs_a_role_and_no_other_has_one() -> None:
    assert dict(ROLE) == {Standing.PERSON: "viewer", Standing.AUTHOR: "author", Standing.REVIEWER: "reviewer"}
    assert {standing for rule in TABLE.values() for standing in rule.by} == set(Standing)


def test_the_documentation_has_this_very_table() -> None:
    page = (Path(__file__).parents[3] / "docs/governance.md").read_text()
    written = {line for line in page.splitlines() if line.startswith("| ") and line.count(" | ") == 4}
    expected = {
        f"| {state or '-'} | {action} | {', '.join(sorted(rule.to))} | {', '.join(sorted(rule.by))} | {rule.records} |"
        for (state, action), rule in TABLE.items()
        if action is not Action.COMMENT
    }
    assert expected <= written
    assert len(written - expected) == 2, "the table's head, and the line on comments"


def test_nothing_leads_back_into_review() -> None:
    into_review = {
        (state, action) for (state, action), rule in TABLE.items() if ChangeState.IN_REVIEW in rule.to and state
    }
    assert {state for state, action in into_review if action is not Action.COMMENT} == set(OPEN)


def test_a_refusal_names_the_states_that_would_do() -> None:
    assert states_for(Action.DEPRECATE) == ["ACTIVE", "APPROVED", "SUPERSEDED"]
    with pytest.raises(TransitionRefusedError, match="ACTIVE or APPROVED or SUPERSEDED to deprecate it, it is DRAFT"):
        rule_for(ChangeState.DRAFT, Action.DEPRECATE, name="changes/1")


@pytest.mark.parametrize("before", sorted(PLACED | {ChangeState.DEPRECATED, ChangeState.REVOKED}))
@pytest.mark.parametrize("after", sorted(PLACED | {ChangeState.REVOKED}))
def test_whatever_a_generation_does_to_a_published_version_is_in_the_table(
    before: ChangeState, after: ChangeState
) -> None:
    if before is after or (before is ChangeState.DEPRECATED and after in PLACED):
        return  # a generation leaves it alone: only a person restores what a person deprecated
    require_transition(before, placing(before, after), after, name="changes/1")


# ---------------------------------------------------------------- who may, on one change by alice in docs


def change(state: ChangeState) -> Change:
    return Change(
        number=7,
        state=state,
        ref=TemplateRef.parse("docs/echo@1.0.0"),
        sha256="a" * 64,
        author="alice",
        created_at=NOW,
        filename="",
        document=b"",
        resolved=b"",
        statement=b"",
        code_sha256=None,
        request_id="",
    )


@pytest.fixture
def charter(installation: LocalInstallation) -> Charter:
    domain = Domain(reviewers=frozenset({"alice", "bob", "carol"}), threshold=2)
    return replace(installation.charter, domains={"docs": domain, "dev": domain})


WHO = [
    (ChangeState.IN_REVIEW, Action.REJECT, {"alice", "bob", "carol"}),
    (ChangeState.IN_REVIEW, Action.WITHDRAW, {"alice"}),
    (ChangeState.DRAFT, Action.WITHDRAW, {"alice"}),
    (ChangeState.ACTIVE, Action.DEPRECATE, {"alice", "bob", "carol"}),
    (ChangeState.DEPRECATED, Action.RESTORE, {"alice", "bob", "carol"}),
]


@pytest.mark.parametrize(("state", "action", "allowed"), WHO, ids=[f"{state} {action}" for state, action, _ in WHO])
def test_who_may_close(state: ChangeState, action: Action, allowed: set[str], charter: Charter) -> None:
    for person in ("alice", "bob", "carol", "mallory"):

        def close(by: str = person, revocations: Revocations = NO_REVOCATIONS) -> review.Step:
            return review.close(
                change(state), action, by=by, why=" no \n good ", charter=charter, revocations=revocations, at=NOW
            )

        if person not in allowed:
            with pytest.raises((NotAllowedError, ApprovalRefusedError)):
                close()
            continue
        step = close()
        assert (step.by, step.text, step.action, step.before) == ((person,), "no good", action, state)
        assert (step.change.revision, step.change.updated_at) == (2, NOW)
        if person != "alice":
            with pytest.raises(ApprovalRefusedError) as refused:
                close(revocations=Revocations(reviewers=frozenset({person})))
            assert refused.value.reason is Reason.APPROVAL_BY_REVOKED


@pytest.mark.parametrize("action", [Action.REJECT, Action.DEPRECATE])
@pytest.mark.parametrize("why", ["", " \n\t"])
def test_rejecting_and_deprecating_take_a_reason(action: Action, why: str, charter: Charter) -> None:
    state = ChangeState.IN_REVIEW if action is Action.REJECT else ChangeState.APPROVED
    with pytest.raises(AgentFactoryError) as refused:
        review.close(change(state), action, by="bob", why=why, charter=charter, revocations=NO_REVOCATIONS, at=NOW)
    assert refused.value.reason is Reason.INVALID_REQUEST


@pytest.mark.parametrize("text", ["", "  \n", "x" * (COMMENT_CHARACTERS_MAX + 1)])
def test_comments_have_a_length(text: str) -> None:
    with pytest.raises(AgentFactoryError) as refused:
        review.comment(change(ChangeState.ACTIVE), text, by="dave", at=NOW)
    assert refused.value.reason is Reason.INVALID_REQUEST


def test_a_comment_changes_nothing_but_the_etag() -> None:
    before = change(ChangeState.REVOKED)
    step = review.comment(before, " first line\nsecond ", by="dave", at=NOW)
    assert step.text == "first line\nsecond"
    assert replace(step.change, revision=1, updated_at=None) == before
    assert step.change.etag != before.etag


def test_only_the_author_submits_a_draft(charter: Charter) -> None:
    for by in ("bob", "mallory"):
        with pytest.raises(NotAllowedError, match="alice"):
            review.submitted(
                change(ChangeState.DRAFT),
                change(ChangeState.IN_REVIEW),
                by=by,
                charter=charter,
                revocations=NO_REVOCATIONS,
            )


@pytest.mark.parametrize(
    ("state", "counted", "revoked", "expired", "waiting"),
    [
        (ChangeState.DRAFT, (), (), False, ("alice",)),
        (ChangeState.IN_REVIEW, (), (), False, ("bob", "carol")),
        (ChangeState.IN_REVIEW, ("bob",), (), False, ("carol",)),
        (ChangeState.IN_REVIEW, (), ("carol",), False, ("bob",)),
        (ChangeState.IN_REVIEW, (), (), True, ("alice",)),
        *((state, (), (), False, ()) for state in ChangeState if state not in OPEN),
    ],
)
async def test_what_waits_for_whom(
    state: ChangeState,
    counted: tuple[str, ...],
    revoked: tuple[str, ...],
    expired: bool,  # noqa: FBT001
    waiting: tuple[str, ...],
    charter: Charter,
    world: World,
) -> None:
    await world.start()
    submitted = await world.submit(document("echo"))
    found = review.waiting_for(
        replace(submitted, state=state),
        Tally(counted=frozenset(counted), needed=2, above_ceiling=(), not_counted={}),
        charter=charter,
        revocations=Revocations(reviewers=frozenset(revoked)),
        now=submitted.approval_expires - timedelta(seconds=0 if expired else 1),
    )
    assert found == waiting
