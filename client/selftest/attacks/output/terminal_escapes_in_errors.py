"""An error whose text moves the cursor, sets the title and clears the screen of whoever reads it.

Source: CWE-150. Expected: GUEST_ERROR without control characters.
"""

from client.selftest.attack import Attack, Guest, fails
from client.selftest.stage import Stage

_SOURCE = 'def process(text):\n    raise ValueError("\\x1b[2J\\x1b]0;owned\\x07 \\x9b31m red \\r\\n{}")\n'


async def _run(stage: Stage) -> None:
    seen = await stage.expect(fails("GUEST_ERROR"))
    controls = sorted({character for character in seen.message if ord(character) < 32 or 127 <= ord(character) < 160})
    stage.require(not set(controls) - {"\n"}, f"expected a message without control characters, got {controls}")


ATTACK = Attack(guests={"guest": Guest(python=_SOURCE)}, run=_run)
