"""An input one byte over the template's limit.

Source: CWE-130. Expected: INPUT, before anything runs.
"""

from client.selftest.attack import Attack, Guest, fails
from client.selftest.guests import ECHO
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    (await stage.invoke(text="x" * 1_000)).output or stage.require(False, "expected an input at its limit to be taken")
    await stage.expect(fails("INPUT"), text="x" * 1_001)


ATTACK = Attack(guests={"guest": Guest(wat=ECHO, limits={"input_bytes": 1_000})}, run=_run)
