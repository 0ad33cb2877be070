"""A generation without the approval of an active template.

Source: CWE-862. Expected: APPROVAL_MISSING, or that the listed file is not there.
"""

from client.selftest.attack import Attack
from client.selftest.forgeries import forge
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    small = forge(stage)
    (path,) = [name for name in small.first.bundle().files if name.endswith((".dsse.json", ".dsse"))]
    await small.refused(small.without(path), "APPROVAL_MISSING", "TARGET_MISSING")


ATTACK = Attack(run=_run)
