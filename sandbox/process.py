"""Processes that hold nothing: how a sandbox process is started, and what it takes from itself before it serves.

The parent starts a fresh interpreter with one socket, no other descriptor, an empty environment and ``/`` as its
working directory. The child then calls ``confine`` before it reads a byte from the socket. What a later jail adds
(namespaces, Landlock, seccomp) belongs into ``confine``, whose result is the level that was reached.
"""

import contextlib
import ctypes
import importlib.util
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Level = Literal["full", "landlock+seccomp", "rlimits-only"]
LEVELS: Final[tuple[Level, ...]] = ("rlimits-only", "landlock+seccomp", "full")
"""Weakest first."""

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38

# -I: no environment, no user site, no current directory. -S: no site hooks; the two folders needed are named instead.
_INTERPRETER: Final = (sys.executable, "-I", "-S", "-B", "-X", "utf8")
_BOOTSTRAP: Final = (
    "import sys\n"
    "sys.path[:0] = sys.argv[3:5]\n"
    "from importlib import import_module\n"
    "import_module(sys.argv[1]).main(int(sys.argv[2]), sys.argv[5:])\n"
)


class ProcessError(Exception):
    """A sandbox process could not be started or confined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessLimits:
    """Resource limits of a sandbox process. Never RLIMIT_AS: the engine reserves terabytes of address space.

    ``open_files`` counts the engine's own descriptors: one per loaded module and one per memory image.
    ``file_bytes`` 0 allows no write to any file. It bounds memfd too: an engine that loads code from bytes instead of
    mapping a descriptor keeps a memory image of every module in one, and needs that much.
    """

    open_files: int = 1_024
    processes: int = 0
    file_bytes: int = 0


def start(module: str, sock: socket.socket, arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start ``python`` on ``module.main(descriptor, arguments)`` with ``sock`` as its only inheritance.

    Call it from a thread that lives as long as the child: the child dies with the thread that started it.
    """
    package = Path(__file__).resolve().parent.parent
    wasmtime = importlib.util.find_spec("wasmtime")
    if wasmtime is None or wasmtime.origin is None:
        raise ProcessError("expected the wasmtime package to be installed, got none")
    site = Path(wasmtime.origin).parent.parent
    descriptor = sock.fileno()
    return subprocess.Popen(
        [*_INTERPRETER, "-c", _BOOTSTRAP, module, str(descriptor), str(package), str(site), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={},
        close_fds=True,
        pass_fds=(descriptor,),
        start_new_session=True,
    )


def confine(limits: ProcessLimits, *, parent: int | None = None) -> Level:
    """Take from this process what it does not need, for good, and return the level of isolation reached.

    Args:
        limits: resource limits.
        parent: the pid that must still be the parent, so that a child whose parent died early ends.

    Raises:
        ProcessError: the kernel refused a step, or the parent is gone.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in (
        (_PR_SET_PDEATHSIG, signal.SIGKILL),
        (_PR_SET_DUMPABLE, 0),  # no core, no ptrace by the same user, /proc/self belongs to root
        (_PR_SET_NO_NEW_PRIVS, 1),
    ):
        if libc.prctl(option, int(value), 0, 0, 0) != 0:
            raise ProcessError(f"prctl({option}) failed: {os.strerror(ctypes.get_errno())}")
    if parent is not None and os.getppid() != parent:
        raise ProcessError("the parent process is gone")
    for name, amount in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_NPROC, limits.processes),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
    ):
        resource.setrlimit(name, (amount, amount))
    return "rlimits-only"


def thread_count() -> int:
    """Return how many threads this process has."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - names only, before the process serves


def prefer_as_victim() -> None:
    """Ask the kernel to kill this process first when memory runs out; without effect where /proc is read-only."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def reaches(level: Level, demanded: Level) -> bool:
    """Say whether a level is at least the demanded one."""
    return LEVELS.index(level) >= LEVELS.index(demanded)
