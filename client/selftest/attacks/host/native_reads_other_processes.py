"""Native code in a worker's jail that traces another process, and reads and writes its memory.

Source: ptrace(2), process_vm_readv(2). Expected: SIGSYS.
"""

from client.selftest.native_code import attempted

ATTACK = attempted(
    "trace the victim",
    "be traced",
    "read the victim's memory",
    "write the victim's memory",
    "open the victim (pidfd)",
)
