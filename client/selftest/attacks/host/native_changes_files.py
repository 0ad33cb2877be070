"""Native code in a worker's jail that makes, removes, moves and truncates files.

Source: CWE-552, an engine that was taken over. Expected: SIGSYS, and the file is as it was.
"""

from client.selftest.native_code import attempted

ATTACK = attempted("open for writing", "unlink", "rename", "truncate by path", "change the directory")
