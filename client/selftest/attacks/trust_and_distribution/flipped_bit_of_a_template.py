"""One bit of a published template's bytes.

Source: CWE-354. Expected: TARGET_MISMATCH.
"""

from client.selftest.attack import Attack
from client.selftest.forgeries import forge
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    small = forge(stage)
    changed = small.changed("ordinary@1.0.0.json", lambda data: data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
    await small.refused(changed, "TARGET_MISMATCH")


ATTACK = Attack(run=_run)
