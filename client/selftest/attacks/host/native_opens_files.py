"""Native code in a worker's jail that opens files to read them.

Source: CWE-552, an engine that was taken over. Expected: SIGSYS, or a file system in which there is nothing.
"""

from client.selftest.native_code import attempted

ATTACK = attempted(
    "open a file of the host",
    "open /etc/passwd",
    "open the root",
    "open without reading",
    "open by openat2",
    "open the environment of the victim",
)
