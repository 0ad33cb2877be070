"""A program that runs as a worker, in a worker's jail, and is hostile: one attempt a process, named by an argument.

It stands for whoever took over an engine and has its own machine code run. What came of the attempt goes to the socket:
``done``, or the name of the error. An attempt that the jail answers by killing the process leaves nothing there. Below
the level `NEEDED` nothing is attempted: there it would succeed, on the operator's host.
"""

import ctypes
import errno
import mmap
import os
import signal
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Final

from sandbox import jail

NEEDED: Final[jail.Level] = "landlock+seccomp"
UNCONFINED: Final = "unconfined"
"""What is said instead of an attempt, before the level that was reached."""
X86: Final = os.uname().machine == "x86_64"
_HERE: Final = -100  # AT_FDCWD
_EMPTY_PATH: Final = 0x1000
_READ_WRITE_EXECUTE: Final = 7
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _system(x86: int, arm: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char]) -> int:
    """Make a system call by its number of either architecture; raise what the kernel says."""
    passed = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result: int = _libc.syscall(ctypes.c_long(x86 if X86 else arm), *passed)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _buffer() -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(4096)


def _open(path: bytes, flags: int = os.O_RDONLY) -> int:
    return _system(257, 56, _HERE, path, flags | os.O_CLOEXEC, 0o600)


def _memfd() -> int:
    return _system(319, 279, b"attack", 1)


def _memory(protection: int, *, pages: int = 1) -> mmap.mmap:
    return mmap.mmap(-1, pages * mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, protection)


def _address(page: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(page))


def _run(code: bytes) -> None:
    page = _memory(_READ_WRITE_EXECUTE)  # one page: the one kind that may be written and executed, for closures
    page.write(code)
    ctypes.CFUNCTYPE(ctypes.c_int)(_address(page))()


def _send_descriptor(sock: socket.socket) -> None:
    sock.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", sock.fileno()))])


def attempts(sock: socket.socket, victim: int, path: bytes) -> dict[str, Callable[[], object]]:
    """Return every attempt. ``victim``: a process of the same user; ``path``: a file that it can read."""
    found: dict[str, Callable[[], object]] = {
        "open a file of the host": lambda: _open(path),
        "open /etc/passwd": lambda: _open(b"/etc/passwd"),
        "open the root": lambda: _open(b"/"),
        "open without reading": lambda: _open(b"/", os.O_PATH),
        "open by openat2": lambda: _system(437, 437, _HERE, path, _buffer(), 24),
        "open the environment of the victim": lambda: _open(b"/proc/%d/environ" % victim),
        "open for writing": lambda: _open(path + b".new", os.O_WRONLY | os.O_CREAT),
        "unlink": lambda: _system(263, 35, _HERE, path, 0),
        "rename": lambda: _system(316, 276, _HERE, path, _HERE, path + b".moved", 0),
        "truncate by path": lambda: _system(76, 45, path, 0),
        "change the directory": lambda: _system(80, 49, b"/tmp"),
        "make a TCP socket": lambda: _system(41, 198, socket.AF_INET, socket.SOCK_STREAM, 0),
        "make a UNIX socket": lambda: _system(41, 198, socket.AF_UNIX, socket.SOCK_STREAM, 0),
        "make a netlink socket": lambda: _system(41, 198, 16, socket.SOCK_RAW, 0),
        "make a pair of sockets": lambda: _system(53, 199, socket.AF_UNIX, socket.SOCK_STREAM, 0, _buffer()),
        "connect": lambda: _system(42, 203, sock.fileno(), b"\1\0/run/x", 9),
        "bind": lambda: _system(49, 200, sock.fileno(), b"\1\0\0attack", 9),
        "listen": lambda: _system(50, 201, sock.fileno(), 1),
        "send a descriptor to the broker": lambda: _send_descriptor(sock),
        "execute a program": lambda: _system(59, 221, b"/bin/true", 0, 0),
        "execute a memfd": lambda: _system(322, 281, _memfd(), b"", 0, 0, _EMPTY_PATH),
        "write into a memfd": lambda: os.write(_memfd(), b"\x7fELF"),
        "fork": lambda: _system(56, 220, signal.SIGCHLD, 0, 0, 0, 0),
        "start a thread": lambda: _system(56, 220, 0x3D0F00, 0, 0, 0, 0),
        "clone3": lambda: _system(435, 435, _buffer(), 88),
        "trace the victim": lambda: _system(101, 117, 16, victim, 0, 0),
        "be traced": lambda: _system(101, 117, 0, 0, 0, 0),
        "read the victim's memory": lambda: _system(310, 270, victim, _buffer(), 1, _buffer(), 1, 0),
        "write the victim's memory": lambda: _system(311, 271, victim, _buffer(), 1, _buffer(), 1, 0),
        "open the victim (pidfd)": lambda: _system(434, 434, victim, 0),
        "kill the victim": lambda: os.kill(victim, signal.SIGTERM),
        "signal a thread of the victim": lambda: _system(234, 131, victim, victim, signal.SIGTERM),
        "send the victim a descriptor's signals": lambda: _system(72, 25, sock.fileno(), 8, victim),
        "mount": lambda: _system(165, 40, b"none", b"/", b"tmpfs", 0, 0),
        "unmount": lambda: _system(166, 39, b"/", 2),
        "change the root": lambda: _system(161, 51, b"/"),
        "open a tree of mounts": lambda: _system(428, 428, _HERE, b"/", 1),
        "enter new namespaces": lambda: _system(272, 97, 0x10000000),
        "enter another's namespaces": lambda: _system(308, 268, 0, 0),
        "io_uring": lambda: _system(425, 425, 8, _buffer()),
        "bpf": lambda: _system(321, 280, 0, _buffer(), 128),
        "userfaultfd": lambda: _system(323, 282, 1),
        "keyctl": lambda: _system(250, 219, 0, -3, 0, 0, 0),
        "perf_event_open": lambda: _system(298, 241, _buffer(), 0, -1, -1, 0),
        "load a module": lambda: _system(313, 273, 0, b"", 0),
        "a call that does not exist": lambda: _system(1_000, 1_000),
        "become root": lambda: _system(105, 146, 0),
        "gain capabilities": lambda: _system(126, 91, _buffer(), _buffer()),
        "raise a limit": lambda: _system(302, 261, 0, 7, _buffer(), 0),
        "become dumpable": lambda: _system(157, 167, 4, 1, 0, 0, 0),
        "outlive the node": lambda: _system(157, 167, 1, 0, 0, 0, 0),
        "put another filter": lambda: _system(317, 277, 1, 0, _buffer()),
        "map memory to write and execute": lambda: _memory(_READ_WRITE_EXECUTE, pages=4),
        "make memory executable that stays writable": lambda: _system(
            10, 226, _address(_memory(mmap.PROT_READ | mmap.PROT_WRITE)), mmap.PAGESIZE, _READ_WRITE_EXECUTE
        ),
        "nothing": lambda: None,
    }
    if X86:
        found |= {
            "a call by its x32 number": lambda: _system(0x40000000 + 39, 0),
            "a call of 32-bit x86": lambda: _run(b"\xb8\x14\0\0\0\xcd\x80\xc3"),  # mov eax, 20; int 0x80; ret
            "a call from own machine code": lambda: _run(b"\xb8\x39\0\0\0\x0f\x05\xc3"),  # mov eax, 57; syscall; ret
        }
    return found


def main(descriptor: int, arguments: Sequence[str]) -> None:
    """Run in the sandbox process. ``arguments``: the launcher's, the attempt, the victim's pid, the path."""
    jail.prepare()
    launched, attempt, victim, path = arguments
    with socket.socket(fileno=descriptor) as sock:
        reached = jail.confine(jail.ProcessLimits(), launched=launched, role="worker")
        if not jail.reaches(reached.level, NEEDED):
            said = f"{UNCONFINED} {reached.level}"
        else:
            try:
                attempts(sock, int(victim), path.encode())[attempt]()
                said = "done"
            except OSError as error:
                said = errno.errorcode.get(error.errno or 0, str(error.errno))
        sock.sendall(said.encode())
        os._exit(0)
