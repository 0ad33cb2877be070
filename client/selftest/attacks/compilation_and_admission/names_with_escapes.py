"""Import names that steer a terminal or look like other names: NUL, newlines, right-to-left marks.

Source: CWE-150, CVE-2021-42574. Expected: a refusal whose text is printable.
"""

from client.selftest.attack import Attack
from client.selftest.compiling import forbidden
from client.selftest.stage import Stage

_NAMES = ("\\1b[2J", "\\0a{\\22event\\22:\\22forged\\22}", "\\e2\\80\\ae", "\\00")


async def _run(stage: Stage) -> None:
    for name in _NAMES:
        await forbidden(
            stage, f'(module (import "{name}" "{name}" (func)) (memory (export "memory") 1) (func (export "_start")))'
        )


ATTACK = Attack(run=_run)
