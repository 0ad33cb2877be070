"""An agent that reads, duplicates and renumbers descriptors that the worker may have.

Source: CWE-403. Expected: an error of the agent each time: a guest's descriptors are not the host's.
"""

from client.selftest.attack import Attack, Guest
from client.selftest.reach import PROBE, nothing_is_reached
from client.selftest.stage import Stage

_ATTEMPTS = (
    *(f"__import__('os').read({number}, 100) or 1 / 0" for number in range(3, 8)),
    *(f"__import__('os').write({number}, b'x')" for number in range(3, 8)),
    "__import__('os').dup(1)",
    "__import__('os').dup2(0, 3)",
    "__import__('os').pipe()",
    "__import__('os').fdopen(3).read()",
)


async def _run(stage: Stage) -> None:
    await nothing_is_reached(stage, _ATTEMPTS)


ATTACK = Attack(guests={"guest": Guest(python=PROBE)}, run=_run)
