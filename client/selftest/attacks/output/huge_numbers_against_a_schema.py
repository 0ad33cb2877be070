"""Numbers of sixty thousand digits and exponents, compared with a schema.

Source: CVE-2020-10735. Expected: OUTPUT, soon.
"""

from client.selftest.attack import Attack, Guest, fails
from client.selftest.guests import ECHO
from client.selftest.stage import Stage

_SCHEMA = {"output_schema": {"type": "integer", "minimum": 1, "multipleOf": 7}}


async def _run(stage: Stage) -> None:
    await stage.expect(fails("OUTPUT"), text="9" * 60_000)
    await stage.expect(fails("OUTPUT"), text="1e999999999")
    await stage.expect(fails("OUTPUT"), text="NaN")


ATTACK = Attack(guests={"guest": Guest(wat=ECHO, document=_SCHEMA)}, run=_run)
