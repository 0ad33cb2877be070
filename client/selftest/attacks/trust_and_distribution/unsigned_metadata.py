"""A generation whose snapshot carries no signature.

Source: CWE-347. Expected: METADATA_UNDER_THRESHOLD.
"""

from client.selftest.attack import Attack
from client.selftest.forgeries import edited, forge
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    small = forge(stage)
    unsigned = small.changed("timestamp.json", edited(lambda document: document.update(signatures=[])))
    await small.refused(unsigned, "METADATA_UNDER_THRESHOLD", "METADATA_INVALID")


ATTACK = Attack(run=_run)
