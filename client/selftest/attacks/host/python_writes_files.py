"""An agent that makes, links, renames and removes files.

Source: CWE-73. Expected: an error of the agent each time.
"""

from client.selftest.attack import Attack, Guest
from client.selftest.reach import PROBE, nothing_is_reached
from client.selftest.stage import Stage

_ATTEMPTS = (
    "open('/tmp/selftest-was-here', 'w').write('x')",
    "open('written', 'w').write('x')",
    "__import__('os').mkdir('/x')",
    "__import__('os').symlink('/etc', '/x')",
    "__import__('os').link('/etc/passwd', '/x')",
    "__import__('os').rename('/tmp', '/x')",
    "__import__('os').remove('/etc/passwd')",
    "__import__('os').truncate('/etc/passwd', 0)",
    "__import__('os').utime('/etc')",
)


async def _run(stage: Stage) -> None:
    await nothing_is_reached(stage, _ATTEMPTS)


ATTACK = Attack(guests={"guest": Guest(python=PROBE)}, run=_run)
