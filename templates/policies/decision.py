"""What the policies answer: a pure function of a policy set and a question, and the refusal that comes of it.

D1  The version is asked about once, and once more with each of its origins and models (`Question.requests`).
D2  All of it must be permitted. What no policy permits is denied; one policy that forbids is enough.
D3  A policy that cannot be evaluated (an overflow, a missing attribute) denies, whatever the others say: Cedar itself
    would skip it, and a rule that broke would stop to hold.
D4  With a broken glass a denial is overridden, unless a policy that forbids says ``@break_glass("never")``.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import cedarpy

from templates.canonical import JsonObject
from templates.policies.facts import Action, Question
from templates.policies.policy_set import Policy, PolicySet, schema
from templates.reasons import AgentFactoryError, Reason

BUILT_IN: Final = "built-in defaults"
_NAMED: Final = re.compile(r"policy `policy([0-9]+)`")
_FAILURE_CHARACTERS_MAX: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """Why not, at which place of the template (JSON pointer; empty: the version as a whole).

    ``policy`` is None where no policy permitted it, or where the question could not even be put. ``failure`` is the
    engine's message when the policy could not be evaluated.
    """

    policy: Policy | None
    place: str = ""
    failure: str = ""
    is_about_all: bool = True
    """It denies the version as a whole, so that the same said of an item of it is nothing new."""

    @property
    def name(self) -> str:
        return self.policy.name if self.policy else ""

    def __str__(self) -> str:
        where = f" at {self.place}" if self.place else ""
        if self.failure:
            return f"{self.name or 'the question'} cannot be evaluated{where}: {self.failure}"
        if self.policy is None:
            return f"no policy permits it{where}"
        message = f": {self.policy.message}" if self.policy.message else ""
        return f"{self.policy.name}{where}{message}"

    def to_json(self) -> JsonObject:
        return {
            "policy": self.name,
            "place": self.place,
            "message": self.policy.message if self.policy else "",
            "failure": self.failure,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer. ``overridden`` are denials that a broken glass put aside: the answer is yes, and somebody is told."""

    action: Action
    policies: str
    """Which set decided: its template reference, or `BUILT_IN`."""
    permitted_by: tuple[Policy, ...] = ()
    denials: tuple[Denial, ...] = ()
    overridden: tuple[Denial, ...] = ()

    @property
    def is_permitted(self) -> bool:
        return not self.denials

    def require(self, subject: str) -> None:
        """Raise `PolicyDeniedError` unless it is permitted; ``subject`` names the version."""
        if self.denials:
            raise PolicyDeniedError(self, subject)

    def to_json(self) -> JsonObject:
        return {
            "action": str(self.action),
            "decision": "allow" if self.is_permitted else "deny",
            "policies": self.policies,
            "permitted_by": [each.to_json() for each in self.permitted_by],
            "denials": [each.to_json() for each in self.denials],
            "overridden": [each.to_json() for each in self.overridden],
        }


class PolicyDeniedError(AgentFactoryError):
    """The admission policies do not permit it; the message names each policy and place."""

    def __init__(self, verdict: Verdict, subject: str) -> None:
        first = verdict.denials[0]
        self.reason = Reason.POLICY_FAILED if any(each.failure for each in verdict.denials) else Reason.POLICY_DENIED
        super().__init__(
            f"expected {verdict.action} of {subject} to be permitted by {verdict.policies}, "
            f"got: {'; '.join(map(str, verdict.denials))}",
            metadata={
                "policy": first.name,
                "place": first.place,
                "policies": verdict.policies,
                "action": str(verdict.action),
                "denied_by": ",".join(sorted({each.name for each in verdict.denials if each.name})),
            },
        )


def decide(policies: PolicySet, question: Question, *, named: str = BUILT_IN) -> Verdict:
    """Answer ``question`` by rules D1 to D4; ``named`` says which set this is.

    A broken glass is what ``question.circumstances`` says; whoever asks has checked that it is (see `control_plane`).
    """
    asked = list(question.requests())
    answers = cedarpy.is_authorized_batch(
        [request for _, request in asked], policies.engine, question.entities(), schema()
    )
    permitted: dict[str, Policy] = {}
    denials: list[Denial] = []
    for (place, _), answer in zip(asked, answers, strict=True):
        by = [policies.policies[int(reason.removeprefix("policy"))] for reason in answer.diagnostics.reasons]
        known = {(each.name, bool(each.failure)) for each in denials if not place or each.is_about_all}
        found = _denials(policies, answer, by, place)
        denials += [each for each in found if (each.name, bool(each.failure)) not in known]
        permitted.update({each.name: each for each in by if each.effect == "permit"})
    verdict = Verdict(
        action=question.action,
        policies=named,
        permitted_by=tuple(permitted[name] for name in sorted(permitted)),
        denials=tuple(sorted(denials, key=lambda each: (each.name, each.place))),
    )
    return _overridden(verdict) if question.circumstances.break_glass else verdict


def unusable(action: Action, *, named: str, why: str, break_glass: bool) -> Verdict:
    """Return the answer where the newest policies may not be used: no, whatever is asked (ADR 21)."""
    verdict = Verdict(action=action, policies=named, denials=(Denial(policy=None, failure=why),))
    return _overridden(verdict) if break_glass else verdict


def _denials(policies: PolicySet, answer: cedarpy.AuthzResult, by: Iterable[Policy], place: str) -> Iterable[Denial]:
    for error in answer.diagnostics.errors:
        named = _NAMED.search(error)
        index = int(named[1]) if named else len(policies.policies)
        policy = policies.policies[index] if index < len(policies.policies) else None
        failure = error.rpartition("`: " if policy else "]: ")[2][:_FAILURE_CHARACTERS_MAX]
        yield Denial(policy=policy, place=_place(policy, place), failure=failure, is_about_all=not place)
    if answer.decision is cedarpy.Decision.Allow:
        return
    forbidding = [each for each in by if each.effect == "forbid"]
    for policy in forbidding:
        yield Denial(policy=policy, place=_place(policy, place), is_about_all=not place)
    if not forbidding and not answer.diagnostics.errors:
        yield Denial(policy=None, place=place, is_about_all=not place)


def _place(policy: Policy | None, place: str) -> str:
    return place or (policy.place if policy else "")


def _overridden(verdict: Verdict) -> Verdict:
    held = tuple(each for each in verdict.denials if each.policy is not None and not each.policy.yields)
    if held:
        return verdict
    return replace(verdict, denials=(), overridden=verdict.denials)
