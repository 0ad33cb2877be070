"""Native code in a worker's jail that executes a program, from disk and from memory.

Source: CVE-2019-5736 (a memfd as a program). Expected: SIGSYS; a memfd holds no byte.
"""

from client.selftest.native_code import attempted

ATTACK = attempted("execute a program", "execute a memfd", "write into a memfd")
