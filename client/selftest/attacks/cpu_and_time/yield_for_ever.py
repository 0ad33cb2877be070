"""A loop that yields on every turn, so that each of its slices is short and there is no end of them.

Source: CWE-400. Expected: DEADLINE, FUEL or the limit of WASI calls; neighbours in time.
"""

from client.selftest.attack import Guest, fails, once
from client.selftest.guests import forever

ATTACK = once(
    Guest(wat=forever("(drop (call $sched_yield))"), limits={"wall_ms": 500}),
    expect=fails("DEADLINE", "FUEL", "HOST_CALLS"),
)
