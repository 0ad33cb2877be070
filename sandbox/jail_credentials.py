"""Who a sandbox process is: a uid of its own when it was started as root, and no capability in any case."""

import ctypes
import os
from contextlib import suppress
from typing import Final

from sandbox.jail_syscalls import call, prctl

_UID_FIRST: Final = 0x70000000
"""Above what systemd hands out (its UIDS-GIDS.md): container ranges end at 0x6FFFFFFF, dynamic users far below."""
_UID_MASK: Final = 0x0FFFFFFF
_NOBODY: Final = 65_534

_PR_SET_KEEPCAPS: Final = 8
_PR_CAPBSET_DROP: Final = 24
_PR_SET_SECUREBITS: Final = 28
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITIES_MAX: Final = 64
# NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE with their locks, and KEEP_CAPS locked off
_SECUREBITS: Final = 0b1110_1111
_CAPABILITY_VERSION: Final = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("words", ctypes.c_uint32 * 6),)


def become_nobody() -> None:
    """Take a uid and gid that no other process has, keeping capabilities until they are given up.

    In a container whose user namespace maps few uids, take the one of nobody instead.

    Raises:
        OSError: the kernel refused it.
    """
    prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    own = _UID_FIRST + (int.from_bytes(os.urandom(4), "little") & _UID_MASK)
    try:
        os.setresgid(own, own, own)
        os.setresuid(own, own, own)
    except OSError:
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    _set_capabilities(effective=True)


def give_up_capabilities() -> None:
    """Hold no capability and be able to gain none.

    Raises:
        OSError: the kernel refused it.
    """
    with suppress(OSError):  # without CAP_SETPCAP; no_new_privs keeps what is left of the bounding set from mattering
        for capability in range(_CAPABILITIES_MAX):
            prctl(_PR_CAPBSET_DROP, capability)
    with suppress(OSError):
        prctl(_PR_SET_SECUREBITS, _SECUREBITS)
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _set_capabilities(effective=False)


def _set_capabilities(*, effective: bool) -> None:
    """Set all three sets: to none, or the effective one to what is permitted (a change of uid empties it)."""
    header, sets = _Header(_CAPABILITY_VERSION, 0), _Sets()
    if effective:
        call("capget", ctypes.byref(header), ctypes.byref(sets))
        sets.words[0], sets.words[3] = sets.words[1], sets.words[4]
    call("capset", ctypes.byref(header), ctypes.byref(sets))
