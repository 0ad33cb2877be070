"""An older generation, brought to a node that has seen a newer one.

Source: TUF, rollback attack. Expected: GENERATION_ROLLBACK or METADATA_ROLLBACK.
"""

from client.selftest.attack import Attack
from client.selftest.forgeries import forge
from client.selftest.guests import ORDINARY
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    small = forge(stage)
    newer = small.world.approve("attacks/newer", ORDINARY)
    await small.taken(small.world.publish(small.template, newer, previous=small.first))
    await small.refused(small.first, "GENERATION_ROLLBACK", "METADATA_ROLLBACK")


ATTACK = Attack(run=_run)
