"""The life of a template version: one table says what may follow what, who may do it, and what is recorded (ADR 19).

Every change of state in the control plane is a cell of `TABLE`; what is not in it is refused. The store applies the
table again in the transaction that writes, so no path around it exists. Nodes know nothing of it: what they run is
decided by approvals, the plan and revocations, which they verify themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, unique
from types import MappingProxyType
from typing import Final

from templates.reasons import AgentFactoryError, Reason


@unique
class ChangeState(StrEnum):
    """What a proposed version is.

    APPROVED is in the library and in no plan: an abstract template, an image, or a version that was rolled back.
    DEPRECATED runs on wherever the plan names it; nothing new should build on it.
    """

    DRAFT = "DRAFT"
    IN_REVIEW = "IN_REVIEW"
    APPROVED = "APPROVED"
    ACTIVE = "ACTIVE"
    SUPERSEDED = "SUPERSEDED"
    DEPRECATED = "DEPRECATED"
    REVOKED = "REVOKED"
    REJECTED = "REJECTED"
    WITHDRAWN = "WITHDRAWN"


OPEN: Final = frozenset({ChangeState.DRAFT, ChangeState.IN_REVIEW})
"""States in which somebody has something to do."""

PLACED: Final = frozenset({ChangeState.APPROVED, ChangeState.ACTIVE, ChangeState.SUPERSEDED})
"""States of what is in the library, as the plan places it."""

RESERVES_NOTHING: Final = frozenset({ChangeState.DRAFT, ChangeState.REJECTED, ChangeState.WITHDRAWN})
"""States in which a change does not keep others from its version."""


@unique
class Action(StrEnum):
    """What happens to a change; stored with its history, never renamed."""

    DRAFT = "DRAFT"
    SUBMIT = "SUBMIT"
    REPLACE = "REPLACE"
    APPROVE = "APPROVE"
    REJECT = "REJECT"
    WITHDRAW = "WITHDRAW"
    COMMENT = "COMMENT"
    PLACE = "PLACE"
    DEPRECATE = "DEPRECATE"
    RESTORE = "RESTORE"
    REVOKE = "REVOKE"
    LIFT = "LIFT"


@unique
class Standing(StrEnum):
    """What somebody is to one change. Access (which person may call what at all) comes before this, and is not it."""

    PERSON = "PERSON"
    """Anybody whom the installation lets in as a person."""
    AUTHOR = "AUTHOR"
    """Whoever submitted this change."""
    REVIEWER = "REVIEWER"
    """A reviewer of its domain by the charter, not revoked, and not the author unless the domain has self-review."""
    PLAN = "PLAN"
    """Nobody: it follows from a generation that was signed."""
    CHARTER = "CHARTER"
    """Nobody online: it follows from an offline-signed charter."""


ROLE: Final[Mapping[Standing, str]] = MappingProxyType(
    {Standing.PERSON: "viewer", Standing.AUTHOR: "author", Standing.REVIEWER: "reviewer"}
)
"""The role that access must have given somebody before their standing counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One cell. ``to`` lists the states it may lead to; where there are several, approvals or the plan decide.

    ``records`` says in words what the history keeps beside time, person, action and both states.
    """

    to: frozenset[ChangeState]
    by: frozenset[Standing]
    records: str
    needs_reason: bool = False


def _rule(*to: ChangeState, by: tuple[Standing, ...], records: str, needs_reason: bool = False) -> Rule:
    return Rule(to=frozenset(to), by=frozenset(by), records=records, needs_reason=needs_reason)


_S, _A, _W = ChangeState, Action, Standing
_PLACED = tuple(sorted(PLACED))
_Cells = dict[tuple[ChangeState | None, Action], Rule]

_COMMENT: _Cells = {(state, _A.COMMENT): _rule(state, by=(_W.PERSON,), records="the comment") for state in _S}
_PLACE: _Cells = {
    (state, _A.PLACE): _rule(*_PLACED, by=(_W.PLAN,), records="the generation's cause") for state in PLACED
}
_REVOKE: _Cells = {
    (state, _A.REVOKE): _rule(_S.REVOKED, by=(_W.REVIEWER,), records="what was revoked, and why")
    for state in OPEN | PLACED | {_S.DEPRECATED}
}
_DEPRECATE: _Cells = {
    (state, _A.DEPRECATE): _rule(_S.DEPRECATED, by=(_W.AUTHOR, _W.REVIEWER), records="the reason", needs_reason=True)
    for state in PLACED
}

TABLE: Final[Mapping[tuple[ChangeState | None, Action], Rule]] = MappingProxyType(
    {
        (None, _A.DRAFT): _rule(_S.DRAFT, by=(_W.PERSON,), records="the digest"),
        (None, _A.SUBMIT): _rule(_S.IN_REVIEW, by=(_W.PERSON,), records="the digest"),
        (_S.DRAFT, _A.SUBMIT): _rule(_S.IN_REVIEW, by=(_W.AUTHOR,), records="the digest that it resolves to now"),
        (_S.DRAFT, _A.REPLACE): _rule(_S.WITHDRAWN, by=(_W.AUTHOR,), records="that another submission took its place"),
        (_S.DRAFT, _A.WITHDRAW): _rule(_S.WITHDRAWN, by=(_W.AUTHOR,), records="the reason, if one was given"),
        (_S.IN_REVIEW, _A.WITHDRAW): _rule(_S.WITHDRAWN, by=(_W.AUTHOR,), records="the reason, if one was given"),
        (_S.IN_REVIEW, _A.APPROVE): _rule(
            _S.IN_REVIEW, *_PLACED, by=(_W.REVIEWER,), records="each signer, and who handed the signatures in"
        ),
        (_S.IN_REVIEW, _A.REJECT): _rule(
            _S.REJECTED, by=(_W.AUTHOR, _W.REVIEWER), records="the reason", needs_reason=True
        ),
        (_S.DEPRECATED, _A.RESTORE): _rule(
            *_PLACED, by=(_W.AUTHOR, _W.REVIEWER), records="the reason, if one was given"
        ),
        (_S.REVOKED, _A.LIFT): _rule(*_PLACED, by=(_W.CHARTER,), records="the generation's cause"),
        **_COMMENT,
        **_PLACE,
        **_REVOKE,
        **_DEPRECATE,
    }
)

_REVIEWING: Final = frozenset({Action.SUBMIT, Action.APPROVE, Action.REJECT, Action.WITHDRAW, Action.REPLACE})


class TransitionRefusedError(AgentFactoryError):
    """The table has no such cell: CHANGE_CLOSED when review is over, CHANGE_STATE when the order is wrong."""

    def __init__(self, name: str, *, state: ChangeState | None, action: Action) -> None:
        self.reason = (
            Reason.CHANGE_CLOSED if action in _REVIEWING and state not in OPEN | {None} else Reason.CHANGE_STATE
        )
        super().__init__(
            f"expected {name} to be {' or '.join(states_for(action)) or 'new'} to {action.lower()} it, "
            f"it is {state or 'new'}",
            metadata={"state": str(state or ""), "action": str(action)},
        )


def states_for(action: Action) -> list[str]:
    """Return the states in which ``action`` is possible."""
    return sorted(str(state) for state, each in TABLE if each is action and state is not None)


def rule_for(state: ChangeState | None, action: Action, *, name: str) -> Rule:
    """Return the cell of a change called ``name``.

    Raises:
        TransitionRefusedError: there is none.
    """
    rule = TABLE.get((state, action))
    if rule is None:
        raise TransitionRefusedError(name, state=state, action=action)
    return rule


def require_transition(before: ChangeState | None, action: Action, after: ChangeState, *, name: str) -> None:
    """Check a change of state that is about to be written.

    Raises:
        TransitionRefusedError: the table does not lead from ``before`` to ``after`` by ``action``.
    """
    if after not in rule_for(before, action, name=name).to:
        raise TransitionRefusedError(name, state=before, action=action)


def placing(before: ChangeState, after: ChangeState) -> Action:
    """Return by which action a signed generation moves a published version from ``before`` to ``after``."""
    if after is ChangeState.REVOKED:
        return Action.REVOKE
    return Action.LIFT if before is ChangeState.REVOKED else Action.PLACE
