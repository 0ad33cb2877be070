"""Randomness without end: each call makes the host work for the guest.

Source: CWE-400. Expected: DEADLINE, FUEL or the limit of WASI calls; neighbours in time.
"""

from client.selftest.attack import Guest, fails, once
from client.selftest.guests import forever

ATTACK = once(
    Guest(wat=forever("(drop (call $random_get (i32.const 0) (i32.const 65536)))"), limits={"wall_ms": 500}),
    expect=fails("DEADLINE", "FUEL", "HOST_CALLS"),
)
