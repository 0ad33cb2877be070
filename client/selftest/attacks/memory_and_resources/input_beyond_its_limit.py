"""An input one byte over the template's limit.

Source: CWE-130. Expected: INPUT, before anything runs.
"""

from client.selftest.attack import Answers, Attack, Guest, fails
from client.selftest.guests import ECHO
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    await stage.expect(Answers("x" * 1_000), text="x" * 1_000)
    await stage.expect(fails("INPUT"), text="x" * 1_001)


ATTACK = Attack(guests={"guest": Guest(wat=ECHO, limits={"input_bytes": 1_000})}, run=_run)
