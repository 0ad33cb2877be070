"""One server with all the online keys that shows two nodes different states of one generation.

Source: equivocation. Expected: each believes what it saw first, neither takes the other's, and what both believe again
is a newer generation: nothing that was shown to one alone can be taken back without a new number.
"""

from dataclasses import replace

from client.selftest.attack import Attack
from client.selftest.forgeries import forge
from client.selftest.guests import ORDINARY
from client.selftest.node import Node
from client.selftest.stage import Stage

_REASONS = ("GENERATION_CONFLICT", "METADATA_ROLLBACK", "METADATA_MISMATCH")


async def _run(stage: Stage) -> None:
    one = forge(stage)
    two = replace(one, node=Node(one.world, name="second"))
    other = one.world.publish(one.template, one.world.approve("attacks/other", ORDINARY))
    stage.require(other.number == one.first.number, "expected two states of one generation")
    await one.taken(one.first)
    await two.taken(other)
    await one.refused(other, *_REASONS)
    await two.refused(one.first, *_REASONS)
    follows = one.world.publish(one.template, previous=one.first)
    for each in (one, two):
        await each.taken(follows)
        await each.refused(one.first, "GENERATION_ROLLBACK", "METADATA_ROLLBACK")


ATTACK = Attack(run=_run)
