"""The node's memory of what it has seen, removed from its store, so that an older generation looks new.

Source: rollback by restoring a disk. Expected: it does not serve, and takes no generation.
"""

from client.selftest.attack import Attack
from client.selftest.forgeries import forge
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    small = forge(stage)
    await small.taken(small.world.publish(small.template, previous=small.first))
    (small.node.store / "belief").unlink()
    await small.refused(small.first, "STORE_DAMAGED")


ATTACK = Attack(run=_run)
