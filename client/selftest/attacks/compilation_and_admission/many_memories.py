"""A hundred memories: limits of bytes are counted for each.

Source: proposals that are switched off. Expected: MODULE_INVALID.
"""

from client.selftest.attack import Attack
from client.selftest.compiling import refused_text
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    await refused_text(stage, f'(module {"(memory 1)" * 100} (func (export "_start")))')


ATTACK = Attack(run=_run)
