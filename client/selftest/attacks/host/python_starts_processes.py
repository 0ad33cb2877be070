"""An agent that forks, executes, starts threads and loads native code.

Source: CWE-78. Expected: an error of the agent each time.
"""

from client.selftest.attack import Attack, Guest
from client.selftest.reach import PROBE, nothing_is_reached
from client.selftest.stage import Stage

_ATTEMPTS = (
    "__import__('os').system('id')",
    "__import__('os').fork()",
    "__import__('os').execv('/bin/sh', ['sh'])",
    "__import__('os').posix_spawn('/bin/sh', ['sh'], {})",
    "__import__('os').popen('id').read()",
    "__import__('subprocess').run(['id'])",
    "__import__('os').kill(1, 9)",
    "__import__('ctypes').CDLL(None)",
    "__import__('mmap').mmap(-1, 4096)",
    "__import__('threading').Thread(target=print).start()",
    "__import__('multiprocessing').Process(target=print).start()",
)


async def _run(stage: Stage) -> None:
    await nothing_is_reached(stage, _ATTEMPTS)


ATTACK = Attack(guests={"guest": Guest(python=PROBE)}, run=_run)
