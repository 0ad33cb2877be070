"""Metadata with a key twice: readers that take the first, and canonical JSON that takes the last, disagree.

Source: CWE-436. Expected: METADATA_INVALID, before any signature is looked at.
"""

from client.selftest.attack import Attack
from client.selftest.forgeries import forge
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    small = forge(stage)
    doubled = small.changed("timestamp.json", lambda data: data.replace(b'"signed":{', b'"signed":{},"signed":{', 1))
    await small.refused(doubled, "METADATA_INVALID", "METADATA_UNDER_THRESHOLD")


ATTACK = Attack(run=_run)
