"""The admission policies on a reviewer's machine: fetched, believed by their approvals alone, and asked again here.

A control plane that was taken over can leave its own question out. It cannot answer this one: the policies count here
only with the signatures of the charter's reviewers, and the version that is asked about was derived on this machine.
What is left to it is to show an older version of the policies, or none. Against that the machine remembers the newest
that it has seen, and the charter can set a floor (ADR 21).
"""

import difflib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from templates.acceptance import effective_revocations, tally
from templates.approval import Envelope
from templates.canonical import JsonObject
from templates.capabilities import Capabilities
from templates.charter import Charter
from templates.comparison import Entry
from templates.names import TemplateRef, Version
from templates.policies.comparison import policy_entries
from templates.policies.decision import BUILT_IN, Verdict
from templates.policies.facts import Action, Circumstances, Principal, Question, Subject, subject_of
from templates.policies.policy_set import POLICY_NAME, default_policies, policies_of
from templates.policies.standing import Candidate, Standing, standing
from templates.reach import ThroughAgents
from templates.reasons import AgentFactoryError, Reason
from templates.resolved import ResolvedTemplate
from templates.revocations import Revocations
from templates.trusted_set import Accepted

if TYPE_CHECKING:
    import grpc

FETCH_TIMEOUT_S: Final = 30.0
_MEMORY: Final = "policies.json"


class PoliciesBehindError(AgentFactoryError):
    """The control plane shows older policies than it, or another one, has shown before."""

    reason = Reason.REVIEW_MISMATCH


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What the policies in force say of a change; a question for each action, in the order in which they come."""

    standing: Standing
    charter: Charter
    answers: tuple[tuple[Question, Verdict], ...]

    @property
    def is_permitted(self) -> bool:
        return all(verdict.is_permitted for _, verdict in self.answers)

    def require_approval(self, subject: str) -> None:
        """Raise `PolicyDeniedError` unless it may be submitted and approved; activation is a matter of its own time."""
        for question, verdict in self.answers:
            if question.action is not Action.ACTIVATE:
                verdict.require(subject)

    def to_json(self) -> JsonObject:
        return {
            "policies": self.standing.named,
            "answers": [
                {**verdict.to_json(), "principal": question.principal.name} for question, verdict in self.answers
            ],
        }

    def lines(self) -> Iterator[str]:
        yield ""
        yield f"What the admission policies say ({self.standing.named}), asked on this machine:"
        for question, verdict in self.answers:
            answer = "permitted" if verdict.is_permitted else "denied"
            yield f"  {answer:9} {question.action} by {question.principal.name}"
            yield from (f"            {denial}" for denial in verdict.denials)


def fetch_standing(
    channel: "grpc.Channel", *, charter: Charter, present: Accepted, memory: Path, now: datetime
) -> Standing:
    """Fetch the newest policies and judge them by this machine's charter.

    Args:
        channel: to the control plane.
        charter: this machine's own copy.
        present: the generation that this machine verified.
        memory: private directory in which the newest version seen is remembered.
        now: aware, UTC, by this machine's clock.

    Raises:
        PoliciesBehindError: it was shown newer ones before.
        RemoteError: the control plane refused or could not be reached.
    """
    from agentfactory.admin.v1 import policy_pb2 as pb
    from agentfactory.admin.v1.policy_pb2_grpc import PolicyServiceStub

    shown = PolicyServiceStub(channel).GetPolicy(pb.GetPolicyRequest(), timeout=FETCH_TIMEOUT_S)
    revocations = effective_revocations(charter, present.plan.revocations, present.belief.revocations)
    return believed(candidate_of(shown), charter=charter, revocations=revocations, memory=memory, now=now)


def candidate_of(shown: Any) -> Candidate | None:
    """Return what a Policy message offers, unverified; None when it says that nothing was ever approved."""
    if not shown.template:
        return None
    ref = TemplateRef.parse(shown.template)
    if ref.template_name != POLICY_NAME:
        raise PoliciesBehindError(f"expected a version of {POLICY_NAME}, got {ref}")
    return Candidate(ref=ref, sha256=shown.sha256.hex(), resolved=shown.resolved, approval=shown.approval)


def believed(
    candidate: Candidate | None, *, charter: Charter, revocations: Revocations, memory: Path, now: datetime
) -> Standing:
    """Judge what the control plane shows, and remember it where it is newer than anything before.

    Raises:
        PoliciesBehindError: it is older.
    """
    known = _remembered(memory)
    shown = candidate.ref.version if candidate else None
    if known is not None and (shown is None or shown < known):
        raise PoliciesBehindError(
            f"expected {POLICY_NAME} from {known}, which this machine has seen, got {shown or 'none'}: the control "
            f"plane hides it, or was restored from an old backup ({memory / _MEMORY} remembers)"
        )
    found = standing(candidate, charter=charter, revocations=revocations, now=now)
    if shown is not None and found.policies is not None and found.ref is not None:
        _remember(memory, shown)
    return found


def opinion_of(
    resolved: ResolvedTemplate,
    capabilities: Capabilities,
    found: Standing,
    *,
    differences: Sequence[Entry],
    through: ThroughAgents,
    is_new: bool,
    charter: Charter,
    payload: bytes,
    person: str,
    approvers: frozenset[str],
    now: datetime,
) -> Opinion:
    """Ask the policies about a change that was derived on this machine.

    Args:
        resolved: the change.
        capabilities: derived here.
        found: the policies.
        differences: with the active version.
        through: what it means beyond its own grants.
        is_new: no version is active.
        charter: this machine's own copy.
        payload: the statement that an approval signs.
        person: who is about to approve; empty when nobody is.
        approvers: who has approved already, by the control plane's word: it decides nothing but the activation, which
            the control plane decides anyway.
        now: aware, UTC, by this machine's clock.
    """
    count = tally(Envelope(payload=payload, signatures={}), charter)
    subject = subject_of(
        resolved,
        capabilities,
        differences=differences,
        through=through,
        is_new=is_new,
        above_ceiling=bool(count.above_ceiling),
    )
    with_person = approvers | ({person} if person in charter.persons else frozenset())
    asked = [(Action.SUBMIT, resolved.author, frozenset[str]()), (Action.ACTIVATE, resolved.author, with_person)]
    if person:
        asked.insert(1, (Action.APPROVE, person, with_person))
    questions = [
        _question(action, name, subject, charter=charter, approvers=approved, threshold=count.needed, now=now)
        for action, name, approved in asked
    ]
    return Opinion(standing=found, charter=charter, answers=tuple((each, found.decide(each)) for each in questions))


def question_again(
    opinion: Opinion, action: Action, *, person: str, now: datetime | None, break_glass: bool
) -> Question:
    """Return the question of ``opinion`` about ``action`` for another person, moment or circumstance.

    Args:
        opinion: about the change.
        action: what is asked for.
        person: on whose behalf; empty as before.
        now: aware; None as before.
        break_glass: whether to ask as if a glass were broken.
    """
    question = next(each for each, _ in opinion.answers if each.action is action)
    around = replace(question.circumstances, break_glass=break_glass, now=now or question.circumstances.now)
    principal = _principal(person, opinion.charter) if person else question.principal
    return replace(question, principal=principal, circumstances=around)


def _question(
    action: Action,
    person: str,
    subject: Subject,
    *,
    charter: Charter,
    approvers: frozenset[str],
    threshold: int,
    now: datetime,
) -> Question:
    return Question(
        action=action,
        principal=_principal(person, charter),
        subject=subject,
        circumstances=Circumstances(
            now=now,
            environment=charter.environment,
            mode=str(charter.mode),
            approvers=approvers,
            threshold=threshold,
        ),
    )


def _principal(person: str, charter: Charter) -> Principal:
    return Principal.of(person, (name for name, domain in charter.domains.items() if person in domain.reviewers))


def as_policies(resolved: ResolvedTemplate, found: Standing) -> tuple[tuple[Entry, ...], str]:
    """Compare proposed policies with those in force, and return the difference of their texts, too.

    Raises:
        InvalidPolicyError: what is proposed is not a set of valid policies.
    """
    new, old = policies_of(resolved), found.policies or default_policies()
    old_name = found.named if found.policies else BUILT_IN
    lines: list[str] = []
    for file in sorted(old.files.keys() | new.files.keys()):
        lines += difflib.unified_diff(
            old.files.get(file, "").split("\n"),
            new.files.get(file, "").split("\n"),
            fromfile=f"{old_name}/{file}",
            tofile=f"{resolved.ref}/{file}",
            lineterm="",
        )
    return policy_entries(old, new), "\n".join(lines)


def _remembered(memory: Path) -> Version | None:
    try:
        value = json.loads((memory / _MEMORY).read_text())
    except FileNotFoundError:
        return None
    return Version.parse(value["newest"])


def _remember(memory: Path, version: Version) -> None:
    memory.mkdir(parents=True, exist_ok=True, mode=0o700)
    scratch = memory / f"{_MEMORY}.tmp"
    scratch.write_text(json.dumps({"newest": str(version)}))
    scratch.replace(memory / _MEMORY)
