"""A hundred thousand empty log lines: they cost no bytes.

Source: CWE-779. Expected: a line costs something of the limit, so that there are few.
"""

from client.selftest.attack import Attack, Guest
from client.selftest.stage import Stage

_SOURCE = """
from agentfactory_sdk import log

def process(text):
    for _ in range(20_000):
        log.info("")
    return "done"
"""


async def _run(stage: Stage) -> None:
    await stage.invoke()
    lines = await stage.log_lines()
    stage.require(len(lines) <= 4_096 // 16, f"expected at most {4_096 // 16} lines in 4096 bytes, got {len(lines)}")


ATTACK = Attack(guests={"guest": Guest(python=_SOURCE)}, run=_run)
