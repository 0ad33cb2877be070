"""A list that doubles without end.

Source: CWE-770. Expected: MEMORY.
"""

from client.selftest.attack import Guest, fails, once

_SOURCE = "def process(text):\n    found = [0]\n    while True:\n        found += found\n"
ATTACK = once(Guest(python=_SOURCE, limits={"memory_bytes": 32 << 20}), expect=fails("MEMORY"))
