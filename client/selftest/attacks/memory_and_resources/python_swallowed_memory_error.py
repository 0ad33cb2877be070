"""An agent that catches the MemoryError and takes again what was freed.

Source: CWE-705. Expected: FUEL or MEMORY.
"""

from client.selftest.attack import Guest, fails, once

_SOURCE = """
def process(text):
    kept = []
    while True:
        try:
            kept.append(bytearray(1 << 20))
        except BaseException:
            kept = kept[: len(kept) // 2]
"""
ATTACK = once(Guest(python=_SOURCE, limits={"fuel": 300_000_000}), expect=fails("FUEL", "MEMORY"))
