"""Native code in a worker's jail that makes memory that it may write and execute, and calls by other ABIs' numbers.

Source: CVE-2013-2094 and others that a filter of one ABI misses. Expected: SIGSYS.
"""

from client.selftest.native_code import attempted
from client.selftest.native_program import X86

ATTACK = attempted(
    "map memory to write and execute",
    "make memory executable that stays writable",
    *(("a call by its x32 number", "a call of 32-bit x86", "a call from own machine code") if X86 else ()),
)
