"""Which policies are in force: the newest version of `POLICY_NAME` that the charter's reviewers approved.

State of the library               In force
no such domain in the charter      the built-in defaults: the charter's holders chose to have no others
no version                         the built-in defaults; nothing, if the charter has a floor for it
newest accepted by the quorum      that version
newest revoked, expired, damaged   nothing: every question is denied, until a newer version is approved

An older version never takes over from a newer one: revoking the strict one must not bring back the lax one.
"""

from dataclasses import dataclass
from datetime import datetime

from templates.acceptance import Material, accept_template
from templates.charter import Charter
from templates.names import TemplateRef
from templates.plan import PlanEntry
from templates.policies.decision import BUILT_IN, Verdict, decide, unusable
from templates.policies.facts import Question
from templates.policies.policy_set import POLICIES_DOMAIN, POLICY_NAME, PolicySet, default_policies, policies_of
from templates.reasons import AgentFactoryError
from templates.revocations import Revocations


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """The newest version of `POLICY_NAME` as it travels, not believed yet."""

    ref: TemplateRef
    sha256: str
    resolved: bytes
    approval: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The policies in force. ``ref`` is None for the defaults; ``policies`` None when the newest may not be used."""

    policies: PolicySet | None
    ref: TemplateRef | None = None
    sha256: str = ""
    approvers: frozenset[str] = frozenset()
    approved_until: datetime | None = None
    problem: str = ""

    @property
    def named(self) -> str:
        return str(self.ref) if self.ref else BUILT_IN

    def decide(self, question: Question) -> Verdict:
        """Answer a question by these policies."""
        if self.policies is None:
            broken = question.circumstances.break_glass
            return unusable(question.action, named=self.named, why=self.problem, break_glass=broken)
        return decide(self.policies, question, named=self.named)


def standing(candidate: Candidate | None, *, charter: Charter, revocations: Revocations, now: datetime) -> Standing:
    """Judge the newest policies by the rule that nodes apply to templates (`templates.acceptance`)."""
    if candidate is None and (floor := charter.floors.get(POLICY_NAME)) is not None:
        return Standing(policies=None, problem=f"expected {POLICY_NAME} from {floor}, the charter's floor, got none")
    if candidate is None or POLICIES_DOMAIN not in charter.domains:
        return Standing(policies=default_policies())
    try:
        accepted = accept_template(
            PlanEntry(template=candidate.ref, sha256=candidate.sha256),
            {candidate.ref: Material(resolved=candidate.resolved, approval=candidate.approval)},
            charter=charter,
            revocations=revocations,
            now=now,
        )
        policies = policies_of(accepted.resolved)
    except AgentFactoryError as error:
        problem = f"{POLICY_NAME} may not be used: {error.reason}: {error.message}"
        return Standing(policies=None, ref=candidate.ref, sha256=candidate.sha256, problem=problem)
    return Standing(
        policies=policies,
        ref=candidate.ref,
        sha256=candidate.sha256,
        approvers=accepted.persons,
        approved_until=accepted.approved_until,
    )
