"""JSON nested a hundred thousand deep, read inside an interpreter.

Source: CWE-674. Expected: an ordinary error of the agent or a trap; the worker lives.
"""

from client.selftest.attack import Guest, fails, once

_SOURCE = "import json\ndef process(text):\n    return str(len(json.loads('[' * 100000 + ']' * 100000)))\n"
ATTACK = once(Guest(python=_SOURCE), expect=fails("GUEST_ERROR", "TRAP"))
