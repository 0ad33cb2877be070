"""A loop without end and without a host call.

Source: CWE-835. Expected: FUEL, after slices that leave the others their turn.
"""

from client.selftest.attack import Guest, fails, once
from client.selftest.guests import forever

ATTACK = once(Guest(wat=forever("")), expect=fails("FUEL"))
