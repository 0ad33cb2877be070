"""A sleep of a thousand seconds: no fuel is burnt.

Source: CWE-400. Expected: DEADLINE; native WASI would have blocked its thread for as long.
"""

from client.selftest.attack import Guest, fails, once
from client.selftest.guests import SLEEP_FOR_EVER

ATTACK = once(Guest(wat=SLEEP_FOR_EVER, limits={"wall_ms": 200}), expect=fails("DEADLINE"))
