"""The system calls that a sandbox process may make; any other kills it (seccomp, classic BPF, assembled here).

A list names calls with a rule each: allowed, refused with an error number, or allowed with arguments that pass tests.
What the lists lack is killed, as is every call of another architecture and of x86-64's x32 numbers.
Filter format: Linux ``Documentation/userspace-api/seccomp_filter.rst``, ``include/uapi/linux/filter.h``.
"""

import ctypes
import errno
import mmap
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from struct import pack
from typing import Final, Literal

from sandbox.jail_syscalls import MACHINE, call, number_of

_AUDIT_ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT: Final = 0x40000000

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND: Final = 0x54  # BPF_ALU | BPF_AND | BPF_K
_JUMP_EQUAL: Final = 0x15
_JUMP_AT_LEAST: Final = 0x35
_RETURN: Final = 0x06
_NUMBER_AT: Final = 0
_ARCHITECTURE_AT: Final = 4
_ARGUMENTS_AT: Final = 16

_KILL: Final = 0x80000000  # SECCOMP_RET_KILL_PROCESS
_ERRNO: Final = 0x00050000
_ALLOW: Final = 0x7FFF0000
_SET_MODE_FILTER: Final = 1

Instruction = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Argument:
    """A test of one argument: its lower 32 bits, under ``mask``, are one of ``values``.

    Everything tested is an ``int`` or a set of flags that lie in the lower half; the kernel ignores the upper one.
    """

    index: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Refused:
    """The call returns an error instead of killing: what a library tries and can do without."""

    code: int


Rule = Literal["allowed"] | Refused | tuple[tuple[Argument, ...] | Refused, ...]
"""Tests come as alternatives, each a conjunction; a last alternative may refuse what passed none of them."""

_WRITE_AND_EXECUTE: Final = mmap.PROT_WRITE | mmap.PROT_EXEC
_NEVER_BOTH: Final = tuple((Argument(2, (bits,), _WRITE_AND_EXECUTE),) for bits in (0, mmap.PROT_WRITE, mmap.PROT_EXEC))
# CPython's ctypes allots the code of its callbacks in single anonymous pages that stay writable.
_CALLBACK_PAGE: Final = (
    Argument(1, (mmap.PAGESIZE,)),
    Argument(3, (mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,)),
    Argument(4, (0xFFFFFFFF,)),
)
_DESCRIPTOR_COMMANDS: Final = (1, 2, 3, 1030, 1033, 1034)
"""F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC (Python's mmap), F_ADD_SEALS, F_GET_SEALS."""
_MEMFD_FLAGS: Final = (0, 1, 2, 3)  # MFD_CLOEXEC, MFD_ALLOW_SEALING
_THREAD: Final = 0x003D0F00  # exactly what glibc's pthread_create asks for
_PR_SET_NAME: Final = 15
_PR_SET_VMA: Final = 0x53564D41

# fmt: off
_NAMES: Final = (
    "brk", "clock_getres", "clock_gettime", "clock_nanosleep", "close", "exit", "exit_group", "fstat", "futex",
    "getpid", "getrandom", "gettid", "gettimeofday", "lseek", "madvise", "membarrier", "mremap", "munmap",
    "nanosleep", "poll", "ppoll", "read", "recvfrom", "restart_syscall", "rt_sigaction", "rt_sigprocmask",
    "rt_sigreturn", "sched_yield", "sendto", "sigaltstack", "write",
)
# fmt: on
_EVERYBODY: Final[dict[str, Rule]] = {
    **dict.fromkeys(_NAMES, "allowed"),
    "ioctl": Refused(errno.ENOTTY),  # libraries ask whether they write to a terminal
    "readlink": Refused(errno.EACCES),  # the engine names a file that it could not map
    "readlinkat": Refused(errno.EACCES),
}


def _abort(pid: int) -> Rule:
    return ((Argument(0, (pid,)), Argument(2, (signal.SIGABRT,))),)


def worker_rules(*, can_open: bool) -> dict[str, Rule]:
    """Return what a worker needs once everything is imported and its engine is made.

    ``can_open`` lets it open files for reading, where Landlock and an empty root leave none but its own memfds.
    """
    rules = _EVERYBODY | {
        "fcntl": ((Argument(1, _DESCRIPTOR_COMMANDS),),),
        "ftruncate": "allowed",  # the engine's memory images
        "memfd_create": ((Argument(1, _MEMFD_FLAGS),),),
        "mmap": (*_NEVER_BOTH, _CALLBACK_PAGE),
        "mprotect": _NEVER_BOTH,
        "prctl": ((Argument(0, (_PR_SET_VMA,)),),),
        "pwrite64": "allowed",
        "recvmsg": "allowed",
        "tgkill": _abort(os.getpid()),
    }
    if can_open:
        for name in ("newfstatat", "statx"):  # the size of what was opened
            rules[name] = "allowed"
        rules["openat"] = ((Argument(2, (os.O_RDONLY | os.O_CLOEXEC,)),),)
    else:
        rules |= dict.fromkeys(("newfstatat", "openat", "statx"), Refused(errno.EACCES))
        rules["newfstatat"] = "allowed"  # glibc's fstat before 2.39
    return rules


def compiler_rules() -> dict[str, Rule]:
    """Return what the compiler needs: threads and no files. What it asks about the machine is refused, not killed."""
    return _EVERYBODY | {
        "clone": ((Argument(0, (_THREAD,)),),),
        "clone3": Refused(errno.ENOSYS),  # its flags lie in memory; glibc falls back to clone
        "fcntl": ((Argument(1, _DESCRIPTOR_COMMANDS),),),
        "ftruncate": "allowed",
        "memfd_create": ((Argument(1, _MEMFD_FLAGS),),),
        "mmap": (*_NEVER_BOTH, _CALLBACK_PAGE),
        "mprotect": _NEVER_BOTH,
        "newfstatat": Refused(errno.EACCES),
        "openat": Refused(errno.EACCES),
        "prctl": ((Argument(0, (_PR_SET_NAME, _PR_SET_VMA)),),),
        "pwrite64": "allowed",
        "rseq": "allowed",
        "sched_getaffinity": "allowed",
        "set_robust_list": "allowed",
        "statx": Refused(errno.EACCES),
        "tgkill": _abort(os.getpid()),
    }


def assemble(rules: Mapping[str, Rule], *, otherwise: int = _KILL, machine: str = MACHINE) -> list[Instruction]:
    """Return the filter program: instructions as (code, jump if true, jump if false, constant).

    Raises:
        OSError: this architecture's numbers are not known.
    """
    number_of("read", machine)  # refuses an unknown architecture before its audit number is looked up
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_EQUAL, 1, 0, _AUDIT_ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_AT_LEAST, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _KILL),
    ]
    for name, rule in rules.items():
        number = number_of(name, machine)
        if number >= 0:
            body = _body(rule)
            program += [(_JUMP_EQUAL, 0, len(body), number), *body]
    return [*program, (_RETURN, 0, 0, otherwise)]


def _body(rule: Rule) -> list[Instruction]:
    """Return the instructions that decide about one call; each way through them ends in a verdict."""
    if rule == "allowed":
        return [(_RETURN, 0, 0, _ALLOW)]
    if isinstance(rule, Refused):
        return [(_RETURN, 0, 0, _ERRNO | rule.code)]
    body: list[Instruction] = []
    for alternative in rule:
        body += _body(alternative) if isinstance(alternative, Refused) else _conjunction(alternative)
    return [*body, (_RETURN, 0, 0, _KILL)]


def _conjunction(tests: tuple[Argument, ...]) -> list[Instruction]:
    """Allow when all tests pass, else fall through to what follows."""
    backwards: list[Instruction] = [(_RETURN, 0, 0, _ALLOW)]
    for test in reversed(tests):
        after = len(backwards)
        compare = [
            (_JUMP_EQUAL, len(test.values) - 1 - place, after if place == len(test.values) - 1 else 0, value)
            for place, value in enumerate(test.values)
        ]
        load = [(_LOAD, 0, 0, _ARGUMENTS_AT + 8 * test.index), (_AND, 0, 0, test.mask)]
        backwards = [*load, *compare, *backwards]
    return backwards


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def install(program: list[Instruction]) -> None:
    """Filter this thread's system calls, and those of threads that it starts, for good. Needs no_new_privs.

    Raises:
        OSError: the kernel refused it.
    """
    raw = b"".join(pack("=HBBI", *instruction) for instruction in program)
    call("seccomp", _SET_MODE_FILTER, 0, ctypes.byref(_Program(len(program), raw)))
