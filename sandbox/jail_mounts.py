"""An empty root: nothing but this process's own descriptors, read-only, with everything else unmounted.

Descriptors are there because the engine maps compiled code by a path; ``/fd/N`` is that of a sealed memfd.
"""

import os
from typing import Final

from sandbox.jail_syscalls import call, checked

DESCRIPTORS: Final = "/fd"

_RDONLY: Final = 0x1
_NOSUID: Final = 0x2
_NODEV: Final = 0x4
_NOEXEC: Final = 0x8
_REMOUNT: Final = 0x20
_BIND: Final = 0x1000
_REC: Final = 0x4000
_PRIVATE: Final = 0x40000
_DETACH: Final = 0x2
_NOTHING: Final = _NOSUID | _NODEV | _NOEXEC
_STAGING: Final = ("/tmp", "/run", "/var", "/usr", "/etc")  # noqa: S108 - mounted over, in a namespace of our own


def enter_empty_root() -> None:
    """Make the empty root this process's root and forget the one before. Needs a mount namespace of its own.

    Raises:
        OSError: the kernel refused a step; the old root may still be there, or parts of the new one beside it.
    """
    staging = next(path for path in _STAGING if os.path.isdir(path))  # noqa: PTH112 - as cheap as it can be
    _mount(None, "/", None, _REC | _PRIVATE)
    _mount("empty", staging, "tmpfs", _NOTHING, "size=4k,nr_inodes=4,mode=0555")
    os.mkdir(staging + DESCRIPTORS, 0o555)  # noqa: PTH102
    _mount("/proc/self/fd", staging + DESCRIPTORS, None, _BIND)
    _mount(None, staging + DESCRIPTORS, None, _REMOUNT | _BIND | _RDONLY | _NOTHING)
    os.chdir(staging)
    call("pivot_root", b".", b".")
    checked("umount2", b".", _DETACH)
    os.chdir("/")
    _mount(None, "/", None, _REMOUNT | _BIND | _RDONLY | _NOTHING)


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    source_, target_, kind_, data_ = (None if one is None else one.encode() for one in (source, target, kind, data))
    checked("mount", source_, target_, kind_, flags, data_)
