"""System calls that Python does not offer, their numbers, and how their refusals are told.

Numbers: the kernel's ``arch/x86/entry/syscalls/syscall_64.tbl`` and ``include/uapi/asm-generic/unistd.h``.
"""

import ctypes
import errno
import os

MACHINE = os.uname().machine

# name: (x86-64, aarch64); -1 where the architecture has no such call
_NUMBERS: dict[str, tuple[int, int]] = {
    "brk": (12, 214),
    "capget": (125, 90),
    "capset": (126, 91),
    "clock_getres": (229, 114),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "clone": (56, 220),
    "clone3": (435, 435),
    "close": (3, 57),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "fcntl": (72, 25),
    "fstat": (5, 80),
    "ftruncate": (77, 46),
    "futex": (202, 98),
    "getpid": (39, 172),
    "getrandom": (318, 278),
    "gettid": (186, 178),
    "gettimeofday": (96, 169),
    "ioctl": (16, 29),
    "landlock_create_ruleset": (444, 444),
    "landlock_restrict_self": (446, 446),
    "lseek": (8, 62),
    "madvise": (28, 233),
    "membarrier": (324, 283),
    "memfd_create": (319, 279),
    "mmap": (9, 222),
    "mount": (165, 40),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "munmap": (11, 215),
    "nanosleep": (35, 101),
    "newfstatat": (262, 79),
    "openat": (257, 56),
    "pivot_root": (155, 41),
    "poll": (7, -1),
    "ppoll": (271, 73),
    "prctl": (157, 167),
    "pwrite64": (18, 68),
    "read": (0, 63),
    "readlink": (89, -1),
    "readlinkat": (267, 78),
    "recvfrom": (45, 207),
    "recvmsg": (47, 212),
    "restart_syscall": (219, 128),
    "rseq": (334, 293),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_getaffinity": (204, 123),
    "sched_yield": (24, 124),
    "seccomp": (317, 277),
    "sendto": (44, 206),
    "set_robust_list": (273, 99),
    "setns": (308, 268),
    "sigaltstack": (131, 132),
    "statx": (332, 291),
    "tgkill": (234, 131),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "write": (1, 64),
    "writev": (20, 66),
}
_COLUMNS = {"x86_64": 0, "aarch64": 1}
libc = ctypes.CDLL(None, use_errno=True)
_syscall = libc.syscall
_syscall.restype = ctypes.c_long


def number_of(name: str, machine: str = MACHINE) -> int:
    """Return the number of a system call on this kind of machine, -1 where it has none.

    Raises:
        OSError: ENOSYS, on an architecture whose numbers are not known here.
    """
    column = _COLUMNS.get(machine)
    if column is None:
        raise OSError(errno.ENOSYS, f"expected x86_64 or aarch64, got {machine}")
    return _NUMBERS[name][column]


def call(name: str, *arguments: object) -> int:
    """Make a system call by name; integers are passed as 64 bits, ctypes objects as they are.

    Raises:
        OSError: the kernel refused it.
    """
    passed = [ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments]
    result: int = _syscall(ctypes.c_long(number_of(name)), *passed)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)
    return result


def checked(name: str, *arguments: object) -> int:
    """Call a function of libc that returns -1 and sets errno when it fails; integers are passed as 64 bits.

    Raises:
        OSError: it failed.
    """
    passed = [ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments]
    result: int = getattr(libc, name)(*passed)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)
    return result


def prctl(option: int, value: int = 0, third: int = 0, fourth: int = 0) -> int:
    """Call ``prctl``.

    Raises:
        OSError: it failed.
    """
    return checked("prctl", option, value, third, fourth, 0)
