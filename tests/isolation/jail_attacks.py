"""A program that runs as a worker, in a worker's jail, and is hostile: one attack a process, named on its command line.

What came of it goes to the socket: ``done``, or the name of the error. An attack that the jail answers by killing the
process leaves nothing there.
"""

import ctypes
import errno
import mmap
import os
import signal
import socket
import struct
from collections.abc import Callable, Sequence

from sandbox import jail

X86 = os.uname().machine == "x86_64"
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
BUFFER = ctypes.create_string_buffer(4096)
HERE = -100  # AT_FDCWD
SOCKET: list[socket.socket] = []


def system(x86: int, arm: int, *arguments: object) -> int:
    """Make a system call by its number; raise what the kernel says."""
    passed = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result: int = libc.syscall(ctypes.c_long(x86 if X86 else arm), *passed)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def opened(path: bytes, flags: int = os.O_RDONLY | os.O_CLOEXEC) -> int:
    return system(257, 56, HERE, path, flags, 0o600)


def memfd() -> int:
    return system(319, 279, b"attack", 1)


def write_into_a_memfd() -> None:
    os.write(memfd(), b"x")


def execute_a_memfd() -> None:
    system(322, 281, memfd(), b"", 0, 0, 0x1000)


def send_a_descriptor() -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", 0))]
    SOCKET[0].sendmsg([b"x"], rights)


def run_machine_code(code: bytes) -> None:
    """As whoever took over the engine would: from a page of the one kind that may be written and executed."""
    page = mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 7)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    ctypes.CFUNCTYPE(ctypes.c_int)(address)()


def write_and_execute_memory() -> None:
    mmap.mmap(-1, 4 * mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 7)


def make_memory_executable_that_stays_writable() -> None:
    page = mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 3)
    system(10, 226, ctypes.addressof(ctypes.c_char.from_buffer(page)), mmap.PAGESIZE, 7)


ATTACKS: dict[str, Callable[[], object]] = {
    # files
    "open a file": lambda: opened(b"/etc/passwd"),
    "open the root": lambda: opened(b"/"),
    "open a file for writing": lambda: opened(b"/tmp/attack", os.O_WRONLY | os.O_CREAT),
    "open without reading (O_PATH)": lambda: opened(b"/", os.O_PATH | os.O_CLOEXEC),
    "open by openat2": lambda: system(437, 437, HERE, b"/etc/passwd", BUFFER, 24),
    "open the device behind a descriptor": lambda: opened(PLACES[0] + b"/0"),
    "open the environment of process 1": lambda: opened(b"/proc/1/environ"),
    "open the memory of process 1": lambda: opened(b"/proc/1/mem"),
    "look at a file": lambda: system(262, 79, HERE, b"/etc/passwd", BUFFER, 0),
    "read a link": lambda: system(267, 78, HERE, b"/proc/self/exe", BUFFER, 4096),
    "list a directory": lambda: system(217, 61, 0, BUFFER, 4096),
    "unlink": lambda: system(263, 35, HERE, b"/tmp/attack", 0),
    "rename": lambda: system(316, 276, HERE, b"/a", HERE, b"/b", 0),
    "change directory": lambda: system(80, 49, b"/tmp"),
    "write into a memfd": write_into_a_memfd,
    "truncate by path": lambda: system(76, 45, b"/tmp/attack", 0),
    # network
    "make a TCP socket": lambda: system(41, 198, socket.AF_INET, socket.SOCK_STREAM, 0),
    "make a UNIX socket": lambda: system(41, 198, socket.AF_UNIX, socket.SOCK_STREAM, 0),
    "make a netlink socket": lambda: system(41, 198, 16, socket.SOCK_RAW, 0),
    "make a pair of sockets": lambda: system(53, 199, socket.AF_UNIX, socket.SOCK_STREAM, 0, BUFFER),
    "connect": lambda: system(42, 203, SOCKET[0].fileno(), b"\1\0/run/x", 9),
    "bind": lambda: system(49, 200, SOCKET[0].fileno(), b"\1\0\0attack", 9),
    "listen": lambda: system(50, 201, SOCKET[0].fileno(), 1),
    "send a descriptor to the broker": send_a_descriptor,
    # processes
    "execute a program": lambda: system(59, 221, b"/bin/true", 0, 0),
    "execute a memfd": execute_a_memfd,
    "fork": lambda: system(56, 220, signal.SIGCHLD, 0, 0, 0, 0),
    "start a thread": lambda: system(56, 220, 0x3D0F00, 0, 0, 0, 0),
    "clone3": lambda: system(435, 435, BUFFER, 88),
    "kill the parent": lambda: os.kill(int(ARGUMENTS[0]), signal.SIGTERM),
    "kill process 1": lambda: os.kill(1, signal.SIGTERM),
    "kill everybody": lambda: os.kill(-1, signal.SIGKILL),
    "signal a thread of the parent": lambda: system(234, 131, int(ARGUMENTS[0]), int(ARGUMENTS[0]), signal.SIGTERM),
    "open the parent (pidfd)": lambda: system(434, 434, int(ARGUMENTS[0]), 0),
    "trace the parent": lambda: system(101, 117, 16, int(ARGUMENTS[0]), 0, 0),
    "be traced": lambda: system(101, 117, 0, 0, 0, 0),
    "read the parent's memory": lambda: system(310, 270, int(ARGUMENTS[0]), BUFFER, 1, BUFFER, 1, 0),
    "take signals of a descriptor for the parent": lambda: system(72, 25, SOCKET[0].fileno(), 8, int(ARGUMENTS[0])),
    "raise a limit": lambda: system(302, 261, 0, 7, BUFFER, 0),
    "become root": lambda: system(105, 146, 0),
    "gain capabilities": lambda: system(126, 91, BUFFER, BUFFER),
    "become dumpable": lambda: system(157, 167, 4, 1, 0, 0, 0),
    "wait for a signal of death no more": lambda: system(157, 167, 1, 0, 0, 0, 0),
    # the kernel
    "mount": lambda: system(165, 40, b"none", b"/", b"tmpfs", 0, 0),
    "unmount": lambda: system(166, 39, b"/", 2),
    "change the root": lambda: system(161, 51, b"/"),
    "open a tree": lambda: system(428, 428, HERE, b"/", 1),
    "enter new namespaces": lambda: system(272, 97, 0x10000000),
    "enter another's namespaces": lambda: system(308, 268, 0, 0),
    "io_uring": lambda: system(425, 425, 8, BUFFER),
    "bpf": lambda: system(321, 280, 0, BUFFER, 128),
    "userfaultfd": lambda: system(323, 282, 1),
    "keyctl": lambda: system(250, 219, 0, -3, 0, 0, 0),
    "add a key": lambda: system(248, 217, b"user", b"a", b"b", 1, -3),
    "perf_event_open": lambda: system(298, 241, BUFFER, 0, -1, -1, 0),
    "load a module": lambda: system(313, 273, 0, b"", 0),
    "set the clock": lambda: system(227, 112, 0, BUFFER),
    "reboot": lambda: system(169, 142, 0xFEE1DEAD, 672274793, 0, 0),
    "type into a terminal": lambda: system(16, 29, 0, 0x5412, b"x"),
    "another filter": lambda: system(317, 277, 1, 0, BUFFER),
    "a call that does not exist": lambda: system(1_000, 1_000),
    "write and execute memory": write_and_execute_memory,
    "make memory executable that stays writable": make_memory_executable_that_stays_writable,
    # what must still work
    "nothing": lambda: None,
    "wait a while": lambda: system(35, 101, struct.pack("qq", 0, 1_000), 0),
    "crash": lambda: ctypes.string_at(1),
    "abort": libc.abort,
}
if X86:
    ATTACKS |= {
        "a call by its x32 number": lambda: system(0x40000000 + 39, 0),
        "a call of 32-bit x86": lambda: run_machine_code(b"\xb8\x14\0\0\0\xcd\x80\xc3"),  # mov eax, 20; int 0x80; ret
        "a call from own machine code": lambda: run_machine_code(b"\xb8\x39\0\0\0\x0f\x05\xc3"),  # fork
    }
ARGUMENTS: list[str] = []
PLACES: list[bytes] = []


def main(descriptor: int, arguments: Sequence[str]) -> None:
    """``arguments``: the launcher's, the attack, the supervisor's pid."""
    jail.prepare()
    launched, attack, *rest = arguments
    ARGUMENTS.extend(rest)
    with socket.socket(fileno=descriptor) as sock:
        SOCKET.append(sock)
        reached = jail.confine(jail.ProcessLimits(), launched=launched, role="worker")
        PLACES.append((reached.descriptors or "/proc/self/fd").encode())
        try:
            ATTACKS[attack]()
            said = "done"
        except OSError as error:
            said = errno.errorcode.get(error.errno or 0, str(error.errno))
        sock.sendall(said.encode())
        os._exit(0)
