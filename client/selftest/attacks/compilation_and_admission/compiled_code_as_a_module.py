"""Code that the engine compiled before: a byte of it can be changed, and it would be run as it is.

Source: sandboxes that accept precompiled modules. Expected: COMPILED_CODE or NOT_WASM.
"""

from client.selftest.attack import Attack
from client.selftest.compiling import refused
from client.selftest.guests import ECHO
from client.selftest.stage import Stage
from sandbox.compiler import compile_module
from sandbox.engine import wat2wasm


async def _run(stage: Stage) -> None:
    compiled = await compile_module(wat2wasm(ECHO))
    await refused(stage, compiled.code, "COMPILED_CODE", "NOT_WASM")


ATTACK = Attack(run=_run)
