"""Millions of small objects, all kept.

Source: CWE-770. Expected: MEMORY or FUEL.
"""

from client.selftest.attack import Guest, fails, once

_SOURCE = "def process(text):\n    kept = []\n    while True:\n        kept.append({len(kept): [object()]})\n"
ATTACK = once(Guest(python=_SOURCE), expect=fails("MEMORY", "FUEL"))
