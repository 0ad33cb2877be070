"""A template whose input schema holds a pattern that backtracks exponentially: on the node, outside of every limit.

Source: CWE-1333. Expected: refused, or matched in linear time.
"""

import time

from client.selftest.attack import Attack, Guest, fails
from client.selftest.guests import ECHO
from client.selftest.stage import Stage

_SCHEMA = {"input_schema": {"type": "string", "pattern": "^(a+)+$"}}


async def _run(stage: Stage) -> None:
    started = time.perf_counter()
    await stage.expect(fails("INPUT"), text='"' + "a" * 10_000 + 'b"')
    took = time.perf_counter() - started
    stage.require(took < 2.0, f"expected a match in linear time, got {took:.1f} s")


ATTACK = Attack(guests={"guest": Guest(wat=ECHO, document=_SCHEMA)}, run=_run)
