"""Native code in a worker's jail that does more with its one socket than it is for.

Source: CVE-2021-0920 (descriptors in flight). Expected: SIGSYS.
"""

from client.selftest.native_code import attempted

ATTACK = attempted("connect", "bind", "listen", "send a descriptor to the broker")
