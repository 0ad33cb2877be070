"""Integers of millions of digits: long single operations inside the interpreter.

Source: CVE-2020-10735. Expected: FUEL or MEMORY.
"""

from client.selftest.attack import Guest, fails, once

_SOURCE = "def process(text):\n    n = 3\n    while True:\n        n = n * n\n"
ATTACK = once(Guest(python=_SOURCE, limits={"fuel": 300_000_000}), expect=fails("FUEL", "MEMORY"))
