"""Writes of zero bytes without end: they reach no limit of bytes.

Source: CWE-400. Expected: DEADLINE, FUEL or the limit of WASI calls; neighbours in time.
"""

from client.selftest.attack import Guest, fails, once
from client.selftest.guests import forever, write

ATTACK = once(
    Guest(wat=forever(write(1, "(i32.const 0)", "(i32.const 0)")), limits={"wall_ms": 500}),
    expect=fails("DEADLINE", "FUEL", "HOST_CALLS"),
)
