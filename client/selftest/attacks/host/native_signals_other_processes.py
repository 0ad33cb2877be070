"""Native code in a worker's jail that signals another process of the host.

Source: kill(2), fcntl(2) F_SETOWN. Expected: SIGSYS, and the victim lives.
"""

from client.selftest.native_code import attempted

ATTACK = attempted("kill the victim", "signal a thread of the victim", "send the victim a descriptor's signals")
