"""A lease that runs for a month, signed with the online key: the charter allows a day.

Source: CWE-613. Expected: LEASE_TOO_LONG.
"""

from client.selftest.attack import Attack
from client.selftest.forgeries import forge
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    small = forge(stage)
    await small.refused(small.world.publish(small.template, lease_s=30 * 86_400), "LEASE_TOO_LONG")


ATTACK = Attack(run=_run)
