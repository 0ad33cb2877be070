"""The snapshot of one generation with the plan of another one.

Source: TUF, mix-and-match attack. Expected: a refusal: the snapshot names the digest of each file.
"""

from client.selftest.attack import Attack
from client.selftest.forgeries import forge
from client.selftest.guests import ORDINARY
from client.selftest.stage import Stage
from templates.bundle import Bundle


async def _run(stage: Stage) -> None:
    small = forge(stage)
    other = small.world.publish(small.world.approve("attacks/other", ORDINARY))
    plans = {name: data for name, data in other.bundle().files.items() if name.endswith("plan.json")}
    mixed = {**small.first.bundle().files, **plans}
    await small.refused(Bundle(files=mixed).to_bytes(), "METADATA_MISMATCH", "TARGET_MISMATCH", "METADATA_INVALID")


ATTACK = Attack(run=_run)
