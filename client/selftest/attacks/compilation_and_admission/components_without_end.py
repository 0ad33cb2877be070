"""Components inside components, two hundred deep.

Source: CWE-674. Expected: facts or a typed refusal, in bounded time.
"""

from client.selftest.attack import Attack
from client.selftest.compiling import judged_in_time, section
from client.selftest.stage import Stage
from sandbox.compiler import COMPONENT_PREAMBLE

_DEPTH = 200
_NESTED_COMPONENT = 4


async def _run(stage: Stage) -> None:
    wasm = COMPONENT_PREAMBLE
    for _ in range(_DEPTH):
        wasm = COMPONENT_PREAMBLE + section(_NESTED_COMPONENT, wasm)
    await judged_in_time(stage, wasm)


ATTACK = Attack(run=_run)
