"""A function that declares four thousand million locals in six bytes.

Source: CWE-789. Expected: MODULE_INVALID.
"""

from client.selftest.attack import Attack
from client.selftest.compiling import function, module, refused
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    await refused(stage, module(function(b"", local_groups=b"\x01\xff\xff\xff\xff\x0f\x7f")), "MODULE_INVALID")


ATTACK = Attack(run=_run)
