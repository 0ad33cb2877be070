"""An exception with ten megabytes of text.

Source: CWE-400. Expected: GUEST_ERROR, cut to what a status can carry.
"""

from client.selftest.attack import Attack, Guest, fails
from client.selftest.stage import Stage

_SOURCE = "def process(text):\n    raise ValueError('x' * 10_000_000)\n"


async def _run(stage: Stage) -> None:
    seen = await stage.expect(fails("GUEST_ERROR", "MEMORY"))
    stage.require(len(seen.message) <= 8_192, f"expected a message that was cut, got {len(seen.message)} characters")


ATTACK = Attack(guests={"guest": Guest(python=_SOURCE)}, run=_run)
