"""A loop without end in an interpreter.

Source: CWE-835. Expected: FUEL.
"""

from client.selftest.attack import Guest, fails, once

ATTACK = once(
    Guest(python="def process(text):\n    while True:\n        pass\n", limits={"fuel": 300_000_000}),
    expect=fails("FUEL"),
)
