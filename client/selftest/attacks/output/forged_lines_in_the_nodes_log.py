"""An error text and a log line that look like lines of the node's own log.

Source: CWE-117. Expected: the node's log holds no such line: what guests say never begins one.
"""

import asyncio

from client.selftest.attack import Attack, Guest, fails
from client.selftest.stage import Stage

_FORGED = '{"event":"forged_by_a_guest","level":"info","component":"node"}'
_SOURCE = f"""
from agentfactory_sdk import log

def process(text):
    log.info('line\\n' + {_FORGED!r} + '\\n')
    raise ValueError('x\\n' + {_FORGED!r} + '\\n')
"""


async def _run(stage: Stage) -> None:
    await stage.expect(fails("GUEST_ERROR"))
    logged = await asyncio.to_thread(stage.node.log.read_text, encoding="utf-8")
    forged = [line for line in logged.splitlines() if line.startswith('{"event":"forged_by_a_guest"')]
    stage.require(not forged, f"expected no line of the guest in the node's log, got {forged[:1]}")


ATTACK = Attack(guests={"guest": Guest(python=_SOURCE)}, run=_run)
