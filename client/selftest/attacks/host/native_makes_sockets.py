"""Native code in a worker's jail that makes sockets of every family.

Source: CWE-923, an engine that was taken over. Expected: SIGSYS.
"""

from client.selftest.native_code import attempted

ATTACK = attempted("make a TCP socket", "make a UNIX socket", "make a netlink socket", "make a pair of sockets")
