"""A million reads of the clock: imports that answer at once burn no fuel and do not yield by themselves.

Source: host calls are outside of fuel. Expected: DEADLINE, FUEL or the limit of WASI calls; neighbours in time.
"""

from client.selftest.attack import Guest, fails, once
from client.selftest.guests import forever

ATTACK = once(
    Guest(
        wat=forever("(drop (call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 8)))"),
        limits={"wall_ms": 500},
    ),
    expect=fails("DEADLINE", "FUEL", "HOST_CALLS"),
)
