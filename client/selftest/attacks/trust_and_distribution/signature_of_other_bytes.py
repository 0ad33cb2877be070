"""Signed metadata in which one number was changed.

Source: CWE-345. Expected: a refusal: the signature is over the bytes that travelled.
"""

from client.selftest.attack import Attack
from client.selftest.forgeries import forge
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    small = forge(stage)
    changed = small.changed("timestamp.json", lambda data: data.replace(b'"version":1', b'"version":2', 1))
    await small.refused(changed, "METADATA_UNDER_THRESHOLD", "METADATA_INVALID")


ATTACK = Attack(run=_run)
