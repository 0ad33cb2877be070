"""The approval of one template, put in the place of another one's.

Source: CWE-345 (mix and match). Expected: APPROVAL_MISMATCH.
"""

from dataclasses import replace

from client.selftest.attack import Attack
from client.selftest.forgeries import forge
from client.selftest.guests import ORDINARY
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    small = forge(stage)
    victim = small.world.approve("attacks/victim", ORDINARY)
    victim = small.world.library[victim.resolved.ref] = replace(victim, approval=small.template.approval)
    await small.refused(small.world.publish(small.template, victim), "APPROVAL_MISMATCH")


ATTACK = Attack(run=_run)
