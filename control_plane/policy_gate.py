"""Where the control plane asks the admission policies: at submission, at each approval, at activation, at a rollback.

The policies themselves are exempt: a change of `POLICY_NAME` is checked as Cedar and takes its quorum, and no policy
judges it. Otherwise one that denies everything could never be replaced.

What this gate is worth: it keeps an honest control plane to the policies that reviewers approved. One that was taken
over can walk around it. Reviewers' machines ask the same policies again before they sign (`client.admission`), and
nodes demand the reviewers' quorum, whatever was asked here (ADR 21).
"""

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum, unique

from control_plane.glasses import Glasses
from control_plane.library import Approved, Library
from control_plane.publication import Published
from control_plane.review import Change
from service.logs import get_logger
from service.telemetry import POLICY_DECISIONS, Telemetry
from templates.acceptance import Tally, tally
from templates.approval import Envelope, read_envelope
from templates.comparison import difference
from templates.fleets import fleets
from templates.plan import Plan
from templates.policies.decision import Verdict
from templates.policies.facts import Action, Circumstances, Principal, Question, Subject, subject_of
from templates.policies.policy_set import POLICIES_DOMAIN, POLICY_NAME, policies_of
from templates.policies.standing import Candidate, Standing, standing
from templates.reach import through_agents
from templates.resolved import ResolvedTemplate, read_resolved

log = get_logger("policy")


@unique
class Event(StrEnum):
    DENIED = "policy_denied"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Version:
    resolved: ResolvedTemplate
    envelope: Envelope


def candidate_of(library: Library) -> Candidate | None:
    """Return the newest policies that were ever published, revoked or not: an older version never takes over again."""
    versions = [each for each in library if each.ref.template_name == POLICY_NAME]
    if not versions:
        return None
    newest = max(versions, key=lambda each: each.ref.version)
    return Candidate(ref=newest.ref, sha256=newest.sha256, resolved=newest.resolved_bytes, approval=newest.envelope)


def standing_of(present: Published, now: datetime) -> Standing:
    """Return the policies in force in a generation."""
    return standing(
        candidate_of(present.material.library),
        charter=present.charter,
        revocations=present.revocations,
        now=now,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What an action stands on; with ``validate_only`` nothing comes of it, and no broken glass is used up."""

    present: Published
    now: datetime
    validate_only: bool = False


class PolicyGate:
    """Every method raises `PolicyDeniedError` unless the action may go on, or a glass was broken for it."""

    def __init__(self, *, glasses: Glasses, telemetry: Telemetry) -> None:
        self._glasses = glasses
        self._telemetry = telemetry

    async def submit(self, change: Change, moment: Moment) -> None:
        """Ask for a change that was just derived, on behalf of its author.

        Raises:
            PolicyDeniedError
            InvalidPolicyError: it is a change of the policies, and they are not valid ones.
        """
        await self._require(Action.SUBMIT, _of_change(change), [change.author], (), moment)

    async def approve(self, change: Change, count: Tally, before: Tally, moment: Moment) -> None:
        """Ask for each person whose approval is new in ``count``."""
        new = sorted(count.counted - before.counted)
        await self._require(Action.APPROVE, _of_change(change), new, count.counted, moment)

    async def activate(self, change: Change, count: Tally, moment: Moment) -> None:
        """Ask for a change that has its approvals, on behalf of its author."""
        await self._require(Action.ACTIVATE, _of_change(change), [change.author], count.counted, moment)

    async def rollback(self, plan: Plan, person: str, moment: Moment) -> None:
        """Ask for every version of ``plan`` that is not active now."""
        material = moment.present.material
        active = set(material.plan.entries)
        for entry in plan.entries:
            found = material.library.get(entry.template)
            if entry not in active and found is not None:
                await self._require(Action.ROLLBACK, _of_approved(found), [person], (), moment)

    async def _require(
        self,
        action: Action,
        version: _Version,
        persons: Iterable[str],
        approvers: Collection[str],
        moment: Moment,
    ) -> None:
        resolved = version.resolved
        if resolved.ref.domain == POLICIES_DOMAIN:
            await asyncio.to_thread(policies_of, resolved)
            return
        charter = moment.present.charter
        standing, subject, needed = await asyncio.to_thread(_ground, version, moment.present, moment.now)
        for person in persons:
            reviews = (name for name, domain in charter.domains.items() if person in domain.reviewers)
            question = Question(
                action=action,
                principal=Principal.of(person, reviews),
                subject=subject,
                circumstances=Circumstances(
                    now=moment.now,
                    environment=charter.environment,
                    mode=str(charter.mode),
                    approvers=frozenset(approvers),
                    threshold=needed,
                ),
            )
            verdict = await asyncio.to_thread(standing.decide, question)
            if not verdict.is_permitted:
                verdict = await self._with_broken_glass(verdict, question, standing, moment)
            self._tell(verdict, question)
            verdict.require(str(resolved.ref))

    def _tell(self, verdict: Verdict, question: Question) -> None:
        self._telemetry.count(POLICY_DECISIONS, str(verdict.action), "allow" if verdict.is_permitted else "deny")
        if not verdict.is_permitted:
            log.info(
                Event.DENIED,
                action=str(verdict.action),
                template=str(question.subject.ref),
                person=question.principal.name,
                policies=verdict.policies,
                denied_by=[each.name for each in verdict.denials],
            )

    async def _with_broken_glass(
        self, denied: Verdict, question: Question, standing: Standing, moment: Moment
    ) -> Verdict:
        """Ask again with the glass that is broken for this version, if one is and it makes a difference."""
        ref = question.subject.ref
        if await self._glasses.usable(ref, present=moment.present) is None:
            return denied
        again = replace(question, circumstances=replace(question.circumstances, break_glass=True))
        verdict = await asyncio.to_thread(standing.decide, again)
        if not verdict.is_permitted or moment.validate_only:
            return verdict
        noted = await self._glasses.use(
            ref,
            action=str(question.action),
            person=question.principal.name,
            policies=[each.name for each in denied.denials],
            present=moment.present,
        )
        return denied if noted is None else verdict


def _of_change(change: Change) -> _Version:
    gathered = read_envelope(change.envelope) if change.envelope else Envelope(payload=change.statement, signatures={})
    return _Version(resolved=read_resolved(change.resolved), envelope=gathered)


def _of_approved(approved: Approved) -> _Version:
    return _Version(resolved=approved.resolved, envelope=read_envelope(approved.envelope))


def _ground(version: _Version, present: Published, now: datetime) -> tuple[Standing, Subject, int]:
    """Return the policies in force, what they are asked about, and how many approvals the version takes."""
    active = _active(version.resolved, present)
    old = read_envelope(active.envelope).statement().capabilities if active else None
    capabilities = version.envelope.statement().capabilities
    count = tally(version.envelope, present.charter, present.revocations)
    subject = subject_of(
        version.resolved,
        capabilities,
        differences=difference(old, capabilities),
        through=through_agents(version.resolved, active.resolved if active else None, fleets(present.accepted)),
        is_new=active is None,
        above_ceiling=bool(count.above_ceiling),
    )
    return standing_of(present, now), subject, count.needed


def _active(resolved: ResolvedTemplate, present: Published) -> Approved | None:
    for entry in present.material.plan.entries:
        if entry.template.template_name == resolved.ref.template_name:
            return present.material.library.get(entry.template)
    return None
