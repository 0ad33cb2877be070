"""Opening what lies beneath a directory, and nothing else: no links, no other file system, nothing that is no file.

Directories on the way are opened by one ``openat2`` (Linux 5.6) with ``RESOLVE_BENEATH``, ``RESOLVE_NO_SYMLINKS``,
``RESOLVE_NO_MAGICLINKS`` and ``RESOLVE_NO_XDEV``: the kernel walks, and whoever swaps a directory for a link meanwhile
makes it fail. Where there is no ``openat2`` (older kernels, gVisor, some container profiles) each name is opened by
itself with ``O_NOFOLLOW`` and its device compared, which the same attacker cannot win either. The last name of a path
is always used by itself, relative to the descriptor of its directory.
"""

import ctypes
import errno
import os
import stat
from functools import cache
from typing import Final

from sandbox.file_protocol import Errno, FileRefusal

_OPENAT2: Final = 437  # the same on every architecture
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 1, 2, 4, 8
_RESOLVE: Final = _NO_XDEV | _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH
_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PLAIN: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_ABSENT: Final = frozenset({errno.ENOSYS, errno.EPERM})  # EPERM: a seccomp profile that does not know the call

_libc = ctypes.CDLL(None, use_errno=True)

_NAMED: Final[dict[int, Errno]] = {getattr(errno, f"E{each.name}", 0): each for each in Errno}
_ERRNOS: Final = _NAMED | {0: Errno.IO, errno.ENXIO: Errno.ACCES, errno.EOPNOTSUPP: Errno.NOTSUP}


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def refusal_of(error: OSError) -> FileRefusal:
    """Return what a guest is told of an error of the host."""
    return FileRefusal(_ERRNOS.get(error.errno or 0, Errno.IO))


def _openat2(directory: int, path: bytes, flags: int) -> int:
    how = _How(flags=flags, mode=0, resolve=_RESOLVE)
    descriptor: int = _libc.syscall(_OPENAT2, directory, path, ctypes.byref(how), ctypes.sizeof(how))
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return descriptor


@cache
def has_openat2() -> bool:
    """Say whether this kernel, under this process's filters, has the call."""
    root = os.open("/", _DIRECTORY)
    try:
        os.close(_openat2(root, b".", _DIRECTORY))
    except OSError as error:
        if error.errno in _ABSENT:
            return False
        raise
    finally:
        os.close(root)
    return True


def open_directory_beneath(directory: int, names: tuple[bytes, ...], *, device: int) -> int:
    """Open the directory ``names`` lead to as a place to start from (``O_PATH``); the caller closes it.

    Raises:
        OSError: it is not there, or a name on the way is no directory (a link: ELOOP or ENOTDIR).
        OSError, FileRefusal: EXDEV, another file system.
    """
    if has_openat2():
        return _openat2(directory, b"/".join(names) or b".", _DIRECTORY)
    return open_directory_by_steps(directory, names, device=device)


def open_directory_by_steps(directory: int, names: tuple[bytes, ...], *, device: int) -> int:
    """The same without ``openat2``."""
    current = os.open(".", _DIRECTORY, dir_fd=directory)
    try:
        for name in names:
            following = os.open(name, _DIRECTORY, dir_fd=current)
            os.close(current)
            current = following
            _require_device(os.fstat(current), device)
    except BaseException:
        os.close(current)
        raise
    return current


def open_plain(directory: int, name: bytes, flags: int, *, device: int) -> tuple[int, os.stat_result]:
    """Open the file or directory ``name`` that lies in ``directory`` and is there already.

    It is looked at before it is opened, because opening a device can do something, and again afterwards.

    Raises:
        OSError: the host's own reason.
        FileRefusal: LOOP for a link, XDEV for what is mounted there, ACCES for anything but files and directories.
    """
    _require_plain(os.stat(name, dir_fd=directory, follow_symlinks=False), device)
    descriptor = os.open(name, flags | _PLAIN, dir_fd=directory)
    try:
        found = os.fstat(descriptor)
        _require_plain(found, device)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, found


def make_file(directory: int, name: bytes, flags: int) -> int:
    """Make a file that is not there yet, for its owner alone.

    Raises:
        OSError: EEXIST if there is something, a dangling link included.
    """
    return os.open(name, flags | _PLAIN | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)


def _require_plain(found: os.stat_result, device: int) -> None:
    mode = found.st_mode
    if stat.S_ISLNK(mode):
        raise FileRefusal(Errno.LOOP)
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise FileRefusal(Errno.ACCES)
    _require_device(found, device)


def _require_device(found: os.stat_result, device: int) -> None:
    if found.st_dev != device:
        raise FileRefusal(Errno.XDEV)
