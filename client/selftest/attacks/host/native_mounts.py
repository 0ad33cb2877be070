"""Native code in a worker's jail that mounts, unmounts, changes its root and enters namespaces.

Source: CVE-2022-0185 (a new user namespace as the first step). Expected: SIGSYS.
"""

from client.selftest.native_code import attempted

ATTACK = attempted(
    "mount",
    "unmount",
    "change the root",
    "open a tree of mounts",
    "enter new namespaces",
    "enter another's namespaces",
)
