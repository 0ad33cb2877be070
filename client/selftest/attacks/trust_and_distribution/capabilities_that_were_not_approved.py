"""A template whose reviewers were shown fewer imports than its module has.

Source: a reviewer shown one thing and signing another. Expected: a node that starts refuses it.
"""

from dataclasses import replace

from client.selftest.attack import Attack, Guest
from client.selftest.forgeries import forge
from client.selftest.guests import KV, ask
from client.selftest.stage import Stage
from client.selftest.starts import refuses_to_serve
from client.selftest.world import Approval
from templates.approval import Statement


def _understated(statement: Statement) -> Statement:
    return replace(statement, capabilities=replace(statement.capabilities, imports=()))


async def _run(stage: Stage) -> None:
    small = forge(stage)
    guest = Guest(wat=ask(b"kv.get", b"{}"), grants=KV)
    victim = small.world.approve("attacks/victim", guest, Approval(amend=_understated))
    found = await small.node.imported(small.world.publish(victim))
    if found.status == 0:
        await refuses_to_serve(stage, small.node, "expected the approved capabilities")
    else:
        stage.require(found.reason == "CAPABILITIES_MISMATCH", f"expected CAPABILITIES_MISMATCH, got {found.reason}")


ATTACK = Attack(run=_run)
