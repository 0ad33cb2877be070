"""A module a byte longer than any may be.

Source: CWE-400. Expected: MODULE_SIZE, before anything parses it.
"""

from client.selftest.attack import Attack
from client.selftest.compiling import PREAMBLE, refused
from client.selftest.stage import Stage
from sandbox.compiler import CompilerSettings


async def _run(stage: Stage) -> None:
    await refused(stage, PREAMBLE + bytes(CompilerSettings().module_bytes_max), "MODULE_SIZE")


ATTACK = Attack(run=_run)
