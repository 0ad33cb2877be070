"""A generation of another installation, whole and honestly signed there.

Source: CWE-346. Expected: refused: the node's root was pinned when it was installed.
"""

from client.selftest.attack import Attack
from client.selftest.forgeries import forge
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    small, other = forge(stage), forge(stage)
    await small.refused(other.first, "METADATA_UNDER_THRESHOLD", "METADATA_MISMATCH", "METADATA_INVALID")


ATTACK = Attack(run=_run)
