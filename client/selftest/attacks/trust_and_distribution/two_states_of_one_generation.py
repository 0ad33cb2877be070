"""A generation of a number that the node has accepted already, with other content.

Source: equivocation. Expected: GENERATION_CONFLICT, or a rollback of a role.
"""

from client.selftest.attack import Attack
from client.selftest.forgeries import forge
from client.selftest.guests import ORDINARY
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    small = forge(stage)
    await small.taken(small.first)
    other = small.world.approve("attacks/other", ORDINARY)
    await small.refused(small.world.publish(other), "GENERATION_CONFLICT", "METADATA_ROLLBACK", "METADATA_MISMATCH")


ATTACK = Attack(run=_run)
