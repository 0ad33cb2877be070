"""A change on its way from a person's submission to the library: what it is, and which approvals it takes.

State        Fact                                      Next
-            submitted                                 IN_REVIEW
IN_REVIEW    approved below the threshold              IN_REVIEW
IN_REVIEW    approved to the threshold, published      APPROVED | ACTIVE | SUPERSEDED (see `control_plane.plan`)
IN_REVIEW    rejected                                  REJECTED
IN_REVIEW    its template or code revoked              REVOKED
APPROVED     a generation was published                APPROVED | ACTIVE | SUPERSEDED | REVOKED, as that generation says
ACTIVE       the same                                  the same
SUPERSEDED   the same                                  the same
REJECTED     anything                                  refused: `ChangeClosedError`
REVOKED      anything but a charter that lifts it      refused: `ChangeClosedError`

APPROVED is in the library and in no plan: an abstract template, an image, or a version that was rolled back.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum, unique

from templates.acceptance import Tally, tally
from templates.approval import Envelope, merge, read_envelope, verify_own
from templates.charter import Charter
from templates.names import TemplateRef
from templates.reasons import AgentFactoryError, Reason
from templates.revocations import Revocations

REJECT_REASON_CHARACTERS_MAX = 2000


@unique
class ChangeState(StrEnum):
    IN_REVIEW = "IN_REVIEW"
    APPROVED = "APPROVED"
    ACTIVE = "ACTIVE"
    REJECTED = "REJECTED"
    REVOKED = "REVOKED"
    SUPERSEDED = "SUPERSEDED"


PUBLISHED = frozenset({ChangeState.APPROVED, ChangeState.ACTIVE, ChangeState.SUPERSEDED})
"""States of what is in the library and may be used."""


class ChangeUnknownError(AgentFactoryError):
    """There is no such change."""

    reason = Reason.CHANGE_UNKNOWN

    def __init__(self, name: str) -> None:
        super().__init__(f"expected the name of a change, changes/<number>, got {name[:80]!r}")


class ChangeClosedError(AgentFactoryError):
    """The change is no longer in review."""

    reason = Reason.CHANGE_CLOSED

    def __init__(self, change: "Change") -> None:
        super().__init__(
            f"expected {change.name} ({change.ref}) to be IN_REVIEW, it is {change.state}",
            metadata={"state": str(change.state)},
        )


class ApprovalRefusedError(AgentFactoryError):
    """A valid signature that counts for nothing: it is refused at once rather than gathered in vain."""

    def __init__(self, message: str, *, reason: Reason) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One proposed template version and everything that was derived from it when it was submitted.

    ``number`` is 0 before it is stored. ``statement`` is the DSSE payload that reviewers sign. ``envelope`` gathers
    their signatures; None before the first.
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
    reject_reason: str = ""
    generation: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"changes/{self.number}"

    def tally(self, charter: Charter, revocations: Revocations) -> Tally:
        """Count what has been gathered, with the threshold that applies to this change."""
        gathered = read_envelope(self.envelope) if self.envelope else Envelope(payload=self.statement, signatures={})
        return tally(gathered, charter, revocations)


def change_number(name: str) -> int:
    """Read ``changes/<number>``; raise `ChangeUnknownError`."""
    prefix, _, digits = name.partition("/")
    if prefix != "changes" or not digits.isascii() or not digits.isdigit() or len(digits) > 18:
        raise ChangeUnknownError(name)
    return int(digits)


def approve(change: Change, offered: bytes, *, charter: Charter, revocations: Revocations) -> tuple[Change, Tally]:
    """Add the signatures of ``offered`` to a change.

    Steps: (1) in review, (2) DSSE whose payload is the one derived here, (3) every signature verifies under a key of
    the charter, (4) every signer counts: a reviewer of the domain, not revoked, not the author (unless the domain lets
    one person work alone), not there already with another key. Acceptance, which decides what runs, counts again.

    Raises:
        ChangeClosedError, ApprovalInvalidError, ApprovalMergeError, StrangerApprovalError, SignatureInvalidError
        ApprovalRefusedError: APPROVAL_BY_REVOKED, APPROVAL_BY_AUTHOR, APPROVAL_ONE_PERSON or APPROVAL_STRANGER.
    """
    require_open(change)
    envelope = read_envelope(offered)
    gathered = read_envelope(change.envelope) if change.envelope else Envelope(payload=change.statement, signatures={})
    merged = merge(gathered, envelope)
    keys_of: dict[str, set[str]] = {}
    for signed in verify_own(envelope, charter):
        _require_reviewer(signed.person, change, charter, revocations)
        keys_of.setdefault(signed.person, set()).add(signed.keyid)
    for keyid in gathered.signatures:
        if (person := charter.person_of(keyid)) in keys_of:
            keys_of[person].add(keyid)
    for person, keyids in keys_of.items():
        if len(keyids) > 1:
            raise ApprovalRefusedError(
                f"expected one signature of {person}, got {len(keyids)} with different keys",
                reason=Reason.APPROVAL_ONE_PERSON,
            )
    result = replace(change, envelope=merged.to_bytes())
    return result, result.tally(charter, revocations)


def reject(change: Change, *, by: str, why: str, charter: Charter, revocations: Revocations) -> Change:
    """Close a change for good. Its author may withdraw it; otherwise it takes a reviewer of its domain.

    Raises:
        ChangeClosedError: not in review.
        ApprovalRefusedError: the person has no say in this domain.
    """
    require_open(change)
    if by != change.author:
        _require_reviewer(by, change, charter, revocations)
    text = " ".join(why.split())[:REJECT_REASON_CHARACTERS_MAX]
    return replace(
        change, state=ChangeState.REJECTED, reject_reason=f"{by}: {text}" if text else f"{by} gave no reason"
    )


def require_open(change: Change) -> None:
    if change.state is not ChangeState.IN_REVIEW:
        raise ChangeClosedError(change)


def reviewers_of(change: Change, charter: Charter) -> Collection[str]:
    """Return the persons whose signature on this change would count."""
    domain = charter.domains.get(change.ref.domain)
    if domain is None:
        return ()
    return sorted(person for person in domain.reviewers if domain.self_review or person != change.author)


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
