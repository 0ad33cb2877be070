"""A whole generation, signed with keys that the root does not name.

Source: CWE-347. Expected: METADATA_UNDER_THRESHOLD.
"""

from client.selftest.attack import Attack
from client.selftest.forgeries import forge
from client.selftest.stage import Stage
from client.selftest.world import new_signer
from templates.repository import OnlineSigners


async def _run(stage: Stage) -> None:
    small = forge(stage)
    strangers = OnlineSigners(snapshot=new_signer(), timestamp=new_signer(), plan=new_signer(), library=new_signer())
    forged = small.world.publish(small.template, signers=strangers)
    await small.refused(forged, "METADATA_UNDER_THRESHOLD")


ATTACK = Attack(run=_run)
