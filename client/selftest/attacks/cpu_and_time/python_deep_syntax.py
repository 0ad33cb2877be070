"""Source nested so deep that the interpreter's own parser may overflow its stack.

Source: CWE-674. Expected: an ordinary error of the agent or a trap; the worker lives.
"""

from client.selftest.attack import Guest, fails, once

_SOURCE = "def process(text):\n    return str(eval('(' * 5000 + '1' + ')' * 5000))\n"
ATTACK = once(Guest(python=_SOURCE), expect=fails("GUEST_ERROR", "TRAP", "MEMORY"))
