"""An agent that opens, lists and stats files of the host.

Source: CWE-552. Expected: an error of the agent each time.
"""

from client.selftest.attack import Attack, Guest
from client.selftest.reach import PROBE, nothing_is_reached
from client.selftest.stage import Stage

_ATTEMPTS = (
    "open('/etc/passwd').read()",
    "open('/proc/self/environ').read()",
    "open('canary.txt').read()",
    "open('../../../../../../etc/hostname').read()",
    "__import__('os').listdir('/')",
    "__import__('os').listdir('.')",
    "__import__('os').stat('/etc')",
    "__import__('os').open('/', 0)",
    "__import__('os').readlink('/proc/self/exe')",
    "__import__('pathlib').Path('/dev/random').read_bytes()",
)


async def _run(stage: Stage) -> None:
    await nothing_is_reached(stage, _ATTEMPTS)


ATTACK = Attack(guests={"guest": Guest(python=PROBE)}, run=_run)
