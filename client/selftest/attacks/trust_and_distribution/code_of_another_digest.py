"""Code whose bytes are not those of the digest that was approved.

Source: CWE-494. Expected: BLOB_UNAVAILABLE or BLOB_MISMATCH.
"""

from dataclasses import replace

from client.selftest.attack import Attack
from client.selftest.forgeries import forge
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    small = forge(stage)
    ref = small.template.resolved.ref
    small.world.library[ref] = replace(small.template, blob=b"\0asm\x01\0\0\0 something else")
    await small.refused(small.first, "BLOB_UNAVAILABLE", "BLOB_MISMATCH")


ATTACK = Attack(run=_run)
