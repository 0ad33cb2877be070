"""Native code in a worker's jail that forks, and starts threads.

Source: CWE-770, a fork bomb. Expected: SIGSYS.
"""

from client.selftest.native_code import attempted

ATTACK = attempted("fork", "start a thread", "clone3")
