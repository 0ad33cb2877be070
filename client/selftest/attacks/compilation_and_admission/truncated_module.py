"""A valid module, cut in its middle, and one with bytes after its end.

Source: CWE-130. Expected: MODULE_INVALID.
"""

from client.selftest.attack import Attack
from client.selftest.compiling import refused
from client.selftest.guests import ECHO
from client.selftest.stage import Stage
from sandbox.engine import wat2wasm


async def _run(stage: Stage) -> None:
    wasm = wat2wasm(ECHO)
    await refused(stage, wasm[: len(wasm) // 2], "MODULE_INVALID")
    await refused(stage, wasm + b"\x63\xff\xff", "MODULE_INVALID")


ATTACK = Attack(run=_run)
