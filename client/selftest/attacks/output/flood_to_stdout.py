"""Output without end that ignores every error.

Source: CWE-400. Expected: OUTPUT at the limit.
"""

from client.selftest.attack import Guest, fails, once
from client.selftest.guests import forever, write

ATTACK = once(Guest(wat=forever(write(1, "(i32.const 0)", "(i32.const 4096)"))), expect=fails("OUTPUT"))
