"""A log line that moves the cursor of whoever reads it, and one that looks like two.

Source: CWE-117, CWE-150. Expected: the lines are kept without control characters; one line stays one line.
"""

from client.selftest.attack import Attack, Guest
from client.selftest.guests import say
from client.selftest.stage import Stage

_TEXT = b"\x1b[2J\x1b]0;owned\x07 \xc2\x9b31m \x08\x08\x08 text\n"


async def _run(stage: Stage) -> None:
    await stage.invoke()
    for line in await stage.log_lines():
        found = {character for character in line if ord(character) < 32 or 127 <= ord(character) < 160}
        stage.require(not found, f"expected log lines without control characters, got {sorted(found)}")


ATTACK = Attack(guests={"guest": Guest(wat=say(2, _TEXT))}, run=_run)
