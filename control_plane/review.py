"""A change on its way from a person's submission to the library: what it is, and what each action makes of it.

Which action is possible in which state, and who may do it, is the table in `control_plane.lifecycle`. Here each action
becomes a `Step`: pure, decided, and ready for the store, which checks it against the table once more.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime

from control_plane.lifecycle import (
    OPEN,
    Action,
    ChangeState,
    Rule,
    Standing,
    require_transition,
    rule_for,
)
from templates.acceptance import Tally, tally
from templates.approval import Envelope, merge, read_envelope, verify_own
from templates.charter import Charter
from templates.names import TemplateRef
from templates.reasons import AgentFactoryError, Reason
from templates.revocations import Revocations

REASON_CHARACTERS_MAX = 2000
COMMENT_CHARACTERS_MAX = 4000
COMMENTS_MAX = 500
"""Of one change."""


NO_TALLY = Tally(counted=frozenset(), needed=0, above_ceiling=(), not_counted={})
"""Of a change whose domain the charter does not name any more: for people to read, never to publish by."""


class ChangeUnknownError(AgentFactoryError):
    """There is no such change."""

    reason = Reason.CHANGE_UNKNOWN

    def __init__(self, name: str) -> None:
        super().__init__(f"expected the name of a change, changes/<number>, got {name[:80]!r}")


class EtagMismatchError(AgentFactoryError):
    """Something moved since the caller looked: read it again, and decide again."""

    reason = Reason.ETAG_MISMATCH

    def __init__(self, what: str, *, expected: str, got: str) -> None:
        super().__init__(
            f"expected the etag {expected!r} of {what} as it is now, got {got[:80]!r}: it changed since it was read",
            metadata={"etag": expected},
        )


class ReasonMissingError(AgentFactoryError):
    """Rejecting and deprecating take a reason; comments take a text."""

    reason = Reason.INVALID_REQUEST


class NotAllowedError(AgentFactoryError):
    """The person is known, and this change is not theirs to act on."""

    reason = Reason.PERMISSION_DENIED


class ApprovalRefusedError(AgentFactoryError):
    """A valid signature that counts for nothing: it is refused at once rather than gathered in vain."""

    def __init__(self, message: str, *, reason: Reason) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One proposed template version and everything that was derived from it when it was submitted.

    ``number`` is 0 before it is stored; ``revision`` counts its changes. ``statement`` is the DSSE payload that
    reviewers sign. ``envelope`` gathers their signatures; None before the first. ``state_reason`` says why it is
    rejected, withdrawn or deprecated, and whose word that is.
    """

    number: int
    state: ChangeState
    ref: TemplateRef
    sha256: str
    author: str
    created_at: datetime
    filename: str
    document: bytes
    resolved: bytes
    statement: bytes
    code_sha256: str | None
    request_id: str
    envelope: bytes | None = None
    state_reason: str = ""
    generation: int = 0
    warnings: tuple[str, ...] = ()
    revision: int = 1
    updated_at: datetime | None = None

    @property
    def name(self) -> str:
        return f"changes/{self.number}"

    @property
    def etag(self) -> str:
        """What an etag of this change is now: opaque to callers."""
        return f"{self.number}.{self.revision}"

    @property
    def approval_expires(self) -> datetime:
        """Until when an approval of this change would be good."""
        return Envelope(payload=self.statement, signatures={}).statement().expires

    def tally(self, charter: Charter, revocations: Revocations) -> Tally:
        """Count what has been gathered, with the threshold that applies to this change."""
        gathered = read_envelope(self.envelope) if self.envelope else Envelope(payload=self.statement, signatures={})
        return tally(gathered, charter, revocations)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One action on one change, decided: the state that it stands on, the change as it becomes, and what is recorded.

    ``change`` carries the next revision: it is written only if the stored one is the revision before. ``by`` names one
    person for each line of history.
    """

    before: ChangeState
    change: Change
    action: Action
    by: tuple[str, ...]
    text: str
    at: datetime

    def entered(self, generation: int, state: ChangeState) -> "Step":
        """Return the step of an approval that brought the change into the library, with what the plan made of it."""
        return replace(self, change=replace(self.change, generation=generation, state=state))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeEvent:
    """One line of a change's history. ``before`` is None where it began; ``number`` counts all lines of the store."""

    number: int
    change: int
    at: datetime
    by: str
    action: Action
    before: ChangeState | None
    after: ChangeState
    text: str


def require_etag(change: Change, etag: str) -> None:
    """Raise `EtagMismatchError` unless ``etag`` is empty or the one that ``change`` has now."""
    if etag and etag != change.etag:
        raise EtagMismatchError(change.name, expected=change.etag, got=etag)


def one_line(text: str, *, characters_max: int = REASON_CHARACTERS_MAX) -> str:
    return " ".join(text.split())[:characters_max]


def change_number(name: str) -> int:
    """Read ``changes/<number>``; raise `ChangeUnknownError`."""
    prefix, _, digits = name.partition("/")
    if prefix != "changes" or not digits.isascii() or not digits.isdigit() or len(digits) > 18:
        raise ChangeUnknownError(name)
    return int(digits)


def approve(
    change: Change, offered: bytes, *, charter: Charter, revocations: Revocations, at: datetime, by: str = ""
) -> tuple[Step, Tally]:
    """Add the signatures of ``offered`` to a change.

    Steps: (1) in review, (2) DSSE whose payload is the one derived here, (3) every signature verifies under a key of
    the charter, (4) every signer counts: a reviewer of the domain, not revoked, not the author (unless the domain lets
    one person work alone), not there already with another key. Acceptance, which decides what runs, counts again.

    ``by`` is who handed the signatures in: no standing is asked of them, the signatures have it.

    Raises:
        TransitionRefusedError, ApprovalInvalidError, ApprovalMergeError, StrangerApprovalError, SignatureInvalidError
        ApprovalRefusedError: APPROVAL_BY_REVOKED, APPROVAL_BY_AUTHOR, APPROVAL_ONE_PERSON or APPROVAL_STRANGER.
    """
    rule_for(change.state, Action.APPROVE, name=f"{change.name} ({change.ref})")
    envelope = read_envelope(offered)
    gathered = read_envelope(change.envelope) if change.envelope else Envelope(payload=change.statement, signatures={})
    merged = merge(gathered, envelope)
    keys_of: dict[str, set[str]] = {}
    for signed in verify_own(envelope, charter):
        _require_reviewer(signed.person, change, charter, revocations)
        keys_of.setdefault(signed.person, set()).add(signed.keyid)
    signers = tuple(sorted(keys_of))
    for keyid in gathered.signatures:
        if (person := charter.person_of(keyid)) in keys_of:
            keys_of[person].add(keyid)
    for person, keyids in keys_of.items():
        if len(keyids) > 1:
            raise ApprovalRefusedError(
                f"expected one signature of {person}, got {len(keyids)} with different keys",
                reason=Reason.APPROVAL_ONE_PERSON,
            )
    text = "" if not by or by in signers else f"handed in by {by}"
    step = _step(change, Action.APPROVE, at=at, by=signers, text=text, envelope=merged.to_bytes())
    return step, step.change.tally(charter, revocations)


def close(
    change: Change, action: Action, *, by: str, why: str, charter: Charter, revocations: Revocations, at: datetime
) -> Step:
    """Reject, withdraw or deprecate a change, or restore a deprecated one to ``APPROVED`` (the plan places it then).

    Raises:
        TransitionRefusedError: not in this state.
        NotAllowedError, ApprovalRefusedError: the person has no say in it.
        ReasonMissingError: the table asks for a reason.
    """
    rule = rule_for(change.state, action, name=f"{change.name} ({change.ref})")
    require_standing(rule, by, change, charter, revocations)
    text = one_line(why)
    if rule.needs_reason and not text:
        raise ReasonMissingError(f"expected a reason to {action.lower()} {change.name}, got none")
    state = ChangeState.APPROVED if action is Action.RESTORE else next(iter(rule.to))
    said = "" if action is Action.RESTORE else f"{by}: {text}" if text else by
    return _step(change, action, at=at, by=(by,), text=text, state=state, state_reason=said)


def comment(change: Change, text: str, *, by: str, at: datetime) -> Step:
    """Add a comment: in every state, since people also talk about what is over.

    Raises:
        ReasonMissingError: empty, or longer than `COMMENT_CHARACTERS_MAX`.
    """
    said = text.strip()
    if not 0 < len(said) <= COMMENT_CHARACTERS_MAX:
        raise ReasonMissingError(f"expected a comment of 1 to {COMMENT_CHARACTERS_MAX} characters, got {len(said)}")
    return _step(change, Action.COMMENT, at=at, by=(by,), text=said)


def replaced(draft: Change, *, at: datetime) -> Step:
    """Close a draft whose author submitted the same version again."""
    said = "another submission of this version took its place"
    return _step(
        draft, Action.REPLACE, at=at, by=(draft.author,), text=said, state=ChangeState.WITHDRAWN, state_reason=said
    )


def submitted(draft: Change, derived: Change, *, by: str, charter: Charter, revocations: Revocations) -> Step:
    """Put a draft into review, as ``derived`` from its document today: parents and image may have moved on.

    Raises:
        TransitionRefusedError: it is no draft.
        NotAllowedError: not by its author.
    """
    rule = rule_for(draft.state, Action.SUBMIT, name=f"{draft.name} ({draft.ref})")
    require_standing(rule, by, draft, charter, revocations)
    return _step(
        draft,
        Action.SUBMIT,
        at=derived.created_at,
        by=(by,),
        text=derived.sha256,
        state=ChangeState.IN_REVIEW,
        sha256=derived.sha256,
        resolved=derived.resolved,
        statement=derived.statement,
        warnings=derived.warnings,
    )


def revoked(change: Change, *, by: str, what: str, at: datetime) -> Step:
    """Close a change that waits although its template or code is revoked."""
    return _step(change, Action.REVOKE, at=at, by=(by,), text=what, state=ChangeState.REVOKED)


def _step(  # one keyword for each member that an action may change
    change: Change, action: Action, *, at: datetime, by: tuple[str, ...], text: str, **amended: object
) -> Step:
    after = replace(change, **amended, revision=change.revision + 1, updated_at=at)  # type: ignore[arg-type]
    require_transition(change.state, action, after.state, name=change.name)
    return Step(before=change.state, change=after, action=action, by=by, text=text, at=at)


def waiting_for(
    change: Change, tally: Tally, *, charter: Charter, revocations: Revocations, now: datetime
) -> tuple[str, ...]:
    """Return the persons of whom something is expected.

    A draft waits for its author. A change in review waits for the reviewers whose signatures would count and are not
    there yet; once an approval would have run out, for its author, who must submit it again.
    """
    if change.state not in OPEN:
        return ()
    if change.state is ChangeState.DRAFT or change.approval_expires <= now:
        return (change.author,)
    return tuple(
        person
        for person in reviewers_of(change, charter)
        if person not in tally.counted and person not in revocations.reviewers
    )


def reviewers_of(change: Change, charter: Charter) -> Collection[str]:
    """Return the persons whose signature on this change would count."""
    domain = charter.domains.get(change.ref.domain)
    if domain is None:
        return ()
    return sorted(person for person in domain.reviewers if domain.self_review or person != change.author)


def require_standing(rule: Rule, person: str, change: Change, charter: Charter, revocations: Revocations) -> None:
    """Raise unless ``person`` has one of the standings that ``rule`` asks for.

    This is the only place that says what somebody is to a change; whether they may call at all was decided before
    (`control_plane.authorisation`).

    Raises:
        NotAllowedError: not the author, where only the author may.
        ApprovalRefusedError: no reviewer who counts, where a reviewer may.
    """
    if Standing.PERSON in rule.by or (Standing.AUTHOR in rule.by and person == change.author):
        return
    if Standing.REVIEWER not in rule.by:
        raise NotAllowedError(f"expected {change.author}, the author of {change.name}, got {person}")
    _require_reviewer(person, change, charter, revocations)


def _require_reviewer(person: str, change: Change, charter: Charter, revocations: Revocations) -> None:
    domain = charter.domains.get(change.ref.domain)
    if domain is None or person not in domain.reviewers:
        raise ApprovalRefusedError(
            f"expected a reviewer of the domain {change.ref.domain}, got {person}", reason=Reason.APPROVAL_STRANGER
        )
    if person in revocations.reviewers:
        raise ApprovalRefusedError(
            f"expected a reviewer in good standing, {person} is revoked", reason=Reason.APPROVAL_BY_REVOKED
        )
    if person == change.author and not domain.self_review:
        raise ApprovalRefusedError(
            f"expected a reviewer who is not the author, got {person}: {change.ref.domain} has no self-review",
            reason=Reason.APPROVAL_BY_AUTHOR,
        )
