"""Landlock without any access (Linux ``Documentation/userspace-api/landlock.rst``).

Everything that the kernel's Landlock can handle is handled, and no rule permits anything. What stays possible: sockets
and files that are already open, and opening a memfd through this process's own descriptors, which are no file system's.
"""

import ctypes
import os
from typing import Final

from sandbox.jail_syscalls import call

_VERSION: Final = 1  # LANDLOCK_CREATE_RULESET_VERSION
_FILES: Final = {1: 13, 2: 14, 3: 15, 5: 16}
"""How many rights on files (bits from the lowest) each ABI version handles; versions between add none."""
_NETWORK: Final = 0b11  # bind and connect TCP, since ABI 4
_SCOPES: Final = 0b11  # abstract UNIX sockets and signals, since ABI 6
_ABI_NETWORK: Final = 4
_ABI_SCOPES: Final = 6


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


def restrict_everything() -> int:
    """Give up every access that Landlock knows, for good; return the ABI version. Needs no_new_privs and one thread.

    Raises:
        OSError: the kernel has no Landlock (ENOSYS), or it is off (EOPNOTSUPP).
    """
    version = call("landlock_create_ruleset", None, 0, _VERSION)
    bits = max(count for since, count in _FILES.items() if since <= version)
    attributes = _RulesetAttributes(handled_access_fs=(1 << bits) - 1)
    size = 8
    if version >= _ABI_NETWORK:
        attributes.handled_access_net, size = _NETWORK, 16
    if version >= _ABI_SCOPES:
        attributes.scoped, size = _SCOPES, 24
    ruleset = call("landlock_create_ruleset", ctypes.byref(attributes), size, 0)
    try:
        call("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)
    return version
