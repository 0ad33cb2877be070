"""A generation whose lease has ended, offered as the newest.

Source: TUF, freeze attack. Expected: METADATA_EXPIRED.
"""

from datetime import UTC, datetime, timedelta

from client.selftest.attack import Attack
from client.selftest.forgeries import forge
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    small = forge(stage)
    old = small.world.publish(small.template, now=datetime.now(UTC) - timedelta(hours=5), lease_s=60)
    await small.refused(old, "METADATA_EXPIRED")


ATTACK = Attack(run=_run)
