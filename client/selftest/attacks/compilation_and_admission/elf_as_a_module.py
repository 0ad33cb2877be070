"""An ELF executable where a module is expected.

Source: CWE-434. Expected: COMPILED_CODE, by its first bytes.
"""

from client.selftest.attack import Attack
from client.selftest.compiling import refused
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    await refused(stage, b"\x7fELF\x02\x01\x01" + bytes(1_000), "COMPILED_CODE")


ATTACK = Attack(run=_run)
