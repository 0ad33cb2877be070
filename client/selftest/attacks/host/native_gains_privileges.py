"""Native code in a worker's jail that takes back what was given up.

Source: CWE-250. Expected: SIGSYS.
"""

from client.selftest.native_code import attempted

ATTACK = attempted(
    "become root",
    "gain capabilities",
    "raise a limit",
    "become dumpable",
    "outlive the node",
    "put another filter",
)
