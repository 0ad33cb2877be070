"""The library of one domain, whose role lists the templates of another one: a role that reaches past its domain.

Source: TUF, delegations. Expected: refused, though the role's own key signed it.
"""

from datetime import UTC, datetime

from client.selftest.attack import Attack
from client.selftest.forgeries import forge
from client.selftest.stage import Stage
from client.selftest.world import ENVIRONMENT
from templates.plan import Plan, PlanEntry
from templates.repository import Library, Validity, publish


async def _run(stage: Stage) -> None:
    small = forge(stage)
    world, template = small.world, small.template
    ref = template.resolved.ref
    foreign = Library(
        templates={ref: template.resolved.to_bytes()},
        approvals={ref: template.approval},
        code={template.sha256: len(template.blob)},
    )
    generation = publish(
        trust=world.trust,
        libraries={"images": foreign},
        plan=Plan(environment=ENVIRONMENT, entries=(PlanEntry(template=ref, sha256=template.resolved.digest),)),
        signers=world.online,
        validity=Validity(lease_s=3_600),
        now=datetime.now(UTC).replace(microsecond=0),
        previous=None,
    )
    await small.refused(generation, "TARGET_MISSING", "METADATA_INVALID", "BUNDLE_INVALID", "TARGET_UNLISTED")


ATTACK = Attack(run=_run)
