"""Components inside components, thirty-three deep and more.

Source: CWE-674. Expected: facts or a typed refusal, in bounded time.
"""

from client.selftest.attack import Attack
from client.selftest.compiling import judged_in_time
from client.selftest.stage import Stage
from sandbox.engine import EngineError, wat2wasm

_DEPTH = 200


async def _run(stage: Stage) -> None:
    try:
        wasm = wat2wasm("(component " * _DEPTH + ")" * _DEPTH)
    except EngineError:
        return  # not even the assembler takes it
    await judged_in_time(stage, wasm)


ATTACK = Attack(run=_run)
