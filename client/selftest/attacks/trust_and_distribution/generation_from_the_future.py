"""A generation that was signed two days ahead: a clock that jumped, here or where it was signed.

Source: CWE-367, clock jumps. Expected: refused; a node that believed it would refuse everything honest for two days.
"""

from datetime import UTC, datetime, timedelta

from client.selftest.attack import Attack
from client.selftest.forgeries import forge
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    small = forge(stage)
    ahead = small.world.publish(small.template, now=datetime.now(UTC) + timedelta(days=2), lease_s=3_600)
    await small.refused(ahead, "LEASE_TOO_LONG", "CLOCK_BEHIND")
    await small.taken(small.first)


ATTACK = Attack(run=_run)
