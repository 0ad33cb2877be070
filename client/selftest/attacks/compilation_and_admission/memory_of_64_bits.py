"""A memory with 64-bit addresses, whose bounds are checked in another way.

Source: proposals that are switched off; CVE-2024-51756 and others live in rarely used ones. Expected: MODULE_INVALID.
"""

from client.selftest.attack import Attack
from client.selftest.compiling import refused_text
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    await refused_text(stage, '(module (memory (export "memory") i64 1) (func (export "_start")))')


ATTACK = Attack(run=_run)
