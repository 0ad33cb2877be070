"""Which approved version is to be active: what an approval, a rollback and a revocation make of the present plan.

The whole fleet runs one version of each template; the plan names runnable templates only. Images and abstract templates
are in the library, from where nodes get them with the templates that need them.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from control_plane.library import Approved, Library
from control_plane.lifecycle import ChangeState
from templates.acceptance import accept_template
from templates.charter import Charter
from templates.names import TemplateRef
from templates.plan import Plan, PlanEntry
from templates.reasons import AgentFactoryError, Reason
from templates.revocations import Revocations


class RollbackRefusedError(AgentFactoryError):
    """The older versions may not be active again, or are active already."""

    reason = Reason.ROLLBACK_REFUSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What decides whether a version may be active at this moment; ``revocations`` are all that are in force.

    ``deprecated`` decides nothing about what runs, only what new versions are built on.
    """

    charter: Charter
    revocations: Revocations
    now: datetime
    deprecated: Collection[TemplateRef] = frozenset()


def with_version(plan: Plan, added: Approved) -> Plan:
    """Make an approved version active, unless the plan names a newer one: approving downgrades nothing."""
    present = _active(plan, added.ref)
    if not added.is_runnable or (present is not None and present.template.version >= added.ref.version):
        return plan
    kept = [each for each in plan.entries if each.template.template_name != added.ref.template_name]
    return replace(plan, entries=_ordered([*kept, added.entry]))


def rolled_back(plan: Plan, earlier: Plan, library: Library, rules: Rules) -> Plan:
    """Name the versions of ``earlier`` again, exactly; revocations stay.

    Raises:
        RollbackRefusedError: nothing would change, or a version is revoked, below a floor, or its approval has run out:
            all such versions are listed, and none is dropped silently.
    """
    if _ordered(earlier.entries) == _ordered(plan.entries):
        raise RollbackRefusedError("expected a generation with other versions than the present ones, got the same")
    refused = [str(problem) for problem in refusals(earlier, library, rules).values()]
    if refused:
        raise RollbackRefusedError(
            f"expected versions that may run today, got {len(refused)} that may not: {'; '.join(refused)[:1500]}"
        )
    return replace(plan, entries=_ordered(earlier.entries))


def with_revocations(plan: Plan, added: Revocations, library: Library, rules: Rules) -> Plan:
    """Revoke, and take out of the plan what may not run any more.

    ``rules.revocations`` are those in force before. A revoked reviewer's approvals count no longer, so templates that
    fall below their threshold leave the plan too.
    """
    rules = replace(rules, revocations=rules.revocations.union(added))
    refused = refusals(plan, library, rules)
    return replace(
        plan,
        entries=tuple(each for each in plan.entries if each.template not in refused),
        revocations=plan.revocations.union(added),
    )


def without_refused(plan: Plan, library: Library, rules: Rules) -> tuple[Plan, Mapping[TemplateRef, AgentFactoryError]]:
    """Take out what a new charter, or the passage of time, does not let run; return that too, with the reasons."""
    refused = refusals(plan, library, rules)
    kept = tuple(each for each in plan.entries if each.template not in refused)
    return (replace(plan, entries=kept) if refused else plan), refused


def refusals(plan: Plan, library: Library, rules: Rules) -> Mapping[TemplateRef, AgentFactoryError]:
    """Apply the acceptance rule that nodes apply to every entry; return the entries that it refuses."""
    materials = library.materials()
    refused: dict[TemplateRef, AgentFactoryError] = {}
    for entry in plan.entries:
        try:
            accept_template(entry, materials, charter=rules.charter, revocations=rules.revocations, now=rules.now)
        except AgentFactoryError as error:
            refused[entry.template] = error
    return refused


def states(
    library: Library, plan: Plan, revocations: Revocations, *, deprecated: Collection[TemplateRef] = ()
) -> Mapping[TemplateRef, ChangeState]:
    """Say what each published version is under ``plan``; what persons deprecated stays so unless it is revoked."""
    return {each.ref: state_of(each, plan, revocations, deprecated=deprecated) for each in library}


def state_of(
    approved: Approved, plan: Plan, revocations: Revocations, *, deprecated: Collection[TemplateRef] = ()
) -> ChangeState:
    """Say what one published version is under ``plan``."""
    if approved.is_revoked(revocations):
        return ChangeState.REVOKED
    if approved.ref in deprecated:
        return ChangeState.DEPRECATED
    active = _active(plan, approved.ref)
    if active is None:
        return ChangeState.APPROVED
    if active.template == approved.ref:
        return ChangeState.ACTIVE
    return ChangeState.SUPERSEDED if active.template.version > approved.ref.version else ChangeState.APPROVED


def _active(plan: Plan, ref: TemplateRef) -> PlanEntry | None:
    return next((each for each in plan.entries if each.template.template_name == ref.template_name), None)


def _ordered(entries: "list[PlanEntry] | tuple[PlanEntry, ...]") -> tuple[PlanEntry, ...]:
    return tuple(sorted(entries, key=lambda each: each.template))
