"""An output of exactly the limit, and one of a byte more.

Source: CWE-193. Expected: the first is delivered whole, the second is OUTPUT.
"""

from client.selftest.attack import Attack, Guest, fails
from client.selftest.guests import ECHO
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    seen = await stage.invoke(text="x" * 1_000)
    stage.require(seen.output == "x" * 1_000, f"expected an output at its limit, got {seen.reason}: {seen.message}")
    await stage.expect(fails("OUTPUT"), text="x" * 1_001)


ATTACK = Attack(guests={"guest": Guest(wat=ECHO, limits={"output_bytes": 1_000})}, run=_run)
