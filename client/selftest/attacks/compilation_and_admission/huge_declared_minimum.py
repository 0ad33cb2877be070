"""A module that declares more memory than its template may have.

Source: CWE-789. Expected: refused before it is approved: a memory is judged by its declaration.
"""

from client.selftest.attack import Attack
from client.selftest.compiling import not_admitted
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    wat = '(module (memory (export "memory") 4096) (func (export "_start")))'
    await not_admitted(stage, wat, "MODULE_MEMORY")


ATTACK = Attack(run=_run)
