"""Processes that hold nothing: how a sandbox process is started, and what it takes from itself before it serves.

The parent starts a launcher, which enters namespaces and has a fresh interpreter begin in them with one socket, no
other descriptor, an empty environment and ``/`` as its working directory (``jail_launch``). That one imports what it
needs, makes its engine, and calls ``confine`` before it reads a byte from the socket (ADR 11).
"""

import asyncio
import ctypes
import importlib.util
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol

from sandbox import jail_credentials, jail_landlock, jail_mounts, jail_seccomp
from sandbox.jail_launch import INTERPRETER
from sandbox.jail_namespaces import NEEDED, USER, Namespaces, enter_user_unmapped
from sandbox.jail_syscalls import libc, prctl

Level = Literal["full", "landlock+seccomp", "rlimits-only"]
LEVELS: Final[tuple[Level, ...]] = ("rlimits-only", "landlock+seccomp", "full")
"""Weakest first."""

Role = Literal["worker", "compiler"]

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38

_PACKAGE: Final = str(Path(__file__).resolve().parent.parent)
_LAUNCH: Final = (
    f"import sys; sys.path.insert(0, {_PACKAGE!r}); from sandbox import jail_launch as launcher; launcher.main()"
)


class ProcessError(Exception):
    """A sandbox process could not be started or confined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessLimits:
    """Resource limits of a sandbox process. Never RLIMIT_AS: the engine reserves terabytes of address space.

    ``open_files`` counts the engine's own descriptors: one per loaded module and one per memory image.
    Files, memfd included, cannot be written at all; ``image_bytes`` is for a process that must copy code instead of
    mapping it: its engine keeps a memory image of every module in a memfd. ``data_bytes`` bounds private writable
    memory and ``cpu_s`` the time of the whole process.
    """

    open_files: int = 1_024
    processes: int = 0
    image_bytes: int = 0
    data_bytes: int | None = None
    cpu_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What a process has taken from itself.

    ``missing`` says what was not to be had and why. ``descriptors`` is the folder in which this process can open its
    own descriptors again, None where nothing but the system call filter would keep it from opening anything else.
    """

    level: Level
    missing: tuple[str, ...] = ()
    descriptors: str | None = None


class SandboxChild(Protocol):
    """What a supervisor needs of its child; `subprocess.Popen` has it too."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def send_signal(self, sig: int) -> None: ...


class Child:
    """A sandbox process of ours: a child of this process, though the launcher made it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status as `subprocess` does (negative: the signal), None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self.returncode = -code if code == signal.SIGABRT else code  # see `prepare`
        return self.returncode

    def send_signal(self, sig: int) -> None:
        """Signal the process unless it is known to have ended."""
        if self.returncode is None:
            os.kill(self.pid, sig)

    async def wait(self) -> int:
        """Return the exit status once the process has ended."""
        loop = asyncio.get_running_loop()
        while (code := self.poll()) is None:
            descriptor = os.pidfd_open(self.pid)
            ended = asyncio.Event()
            loop.add_reader(descriptor, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(descriptor)
                os.close(descriptor)
        return code


async def start(module: str, sock: socket.socket, arguments: Sequence[str]) -> Child:
    """Start a fresh interpreter on ``module.main(descriptor, [launched, *arguments])``; `confine` wants ``launched``.

    ``sock`` is its only inheritance. Call it from a thread that lives as long as the child: the child dies with the
    thread that started it.

    Raises:
        ProcessError: the launcher failed.
    """
    reading, writing = os.pipe()
    try:
        launcher = _launch(writing, module, sock.fileno(), arguments)
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    try:
        told = await _read_all(reading)
    except BaseException:
        launcher.kill()
        launcher.wait()
        raise
    if not told:
        raise ProcessError(f"expected a sandbox process, got a launcher that ended with {launcher.wait()}")
    child = Child(int(told))
    if child.pid == launcher.pid:
        launcher.returncode = 0  # it went on as the sandbox process, which `child` waits for
    else:
        launcher.wait()
    return child


def _launch(report: int, module: str, descriptor: int, arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
    wasmtime = importlib.util.find_spec("wasmtime")
    if wasmtime is None or wasmtime.origin is None:
        raise ProcessError("expected the wasmtime package to be installed, got none")
    site = str(Path(wasmtime.origin).parent.parent)
    return subprocess.Popen(
        [*INTERPRETER, "-c", _LAUNCH, str(report), str(descriptor), _PACKAGE, site, module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={},
        close_fds=True,
        pass_fds=(descriptor, report),
        start_new_session=True,
    )


async def _read_all(descriptor: int) -> bytes:
    """Return what the launcher reports; the end comes when the new interpreter has begun. Closes the descriptor."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[None] = loop.create_future()
    pieces: list[bytes] = []

    def on_readable() -> None:
        piece = os.read(descriptor, 64)
        pieces.append(piece)
        if not piece and not told.done():
            told.set_result(None)

    loop.add_reader(descriptor, on_readable)
    try:
        await told
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return b"".join(pieces)


@dataclass(slots=True)
class _Reached:
    """Collects, while a process confines itself, what was refused."""

    missing: list[str] = field(default_factory=list)

    def attempt(self, what: str, step: "Step") -> bool:
        try:
            step()
        except OSError as error:
            self.missing.append(f"{what}: {error.strerror}")
            return False
        return True


class Step(Protocol):
    """One irrevocable step, which may be refused."""

    def __call__(self) -> object: ...


def confine(limits: ProcessLimits, *, launched: str, role: Role) -> Confinement:
    """Take from this process what it does not need, for good.

    Order: one thread → empty root → uid of its own → user namespace → no capabilities → no_new_privs, not dumpable →
    Landlock → rlimits → seccomp, which would refuse all of the steps before it.

    Args:
        limits: resource limits.
        launched: what the launcher passed as the first argument.
        role: whose system calls are allowed.

    Raises:
        ProcessError: there are several threads, or the kernel refused what every Linux grants.
    """
    if (threads := thread_count()) != 1:
        raise ProcessError(f"expected one thread, got {threads}")
    namespaces, reached = Namespaces.unpack(launched), _Reached()
    has_empty_root = "mount" in namespaces.entered and reached.attempt("empty root", jail_mounts.enter_empty_root)
    has_identity = USER in namespaces.entered
    if os.geteuid() == 0 and not has_identity:
        has_identity = reached.attempt("uid of its own", jail_credentials.become_nobody)
        enter_user_unmapped(namespaces)
    reached.missing += _refusals(namespaces)
    try:
        jail_credentials.give_up_capabilities()
        prctl(_PR_SET_NO_NEW_PRIVS, 1)
        prctl(_PR_SET_DUMPABLE, 0)  # no core, no ptrace by the same user, /proc/self belongs to root
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        has_landlock = reached.attempt("Landlock", jail_landlock.restrict_everything)
        can_open = has_landlock or has_empty_root
        _set_limits(limits, file_bytes=0 if can_open else limits.image_bytes)
    except OSError as error:
        raise ProcessError(f"a step of confinement failed: {error}") from error
    rules = jail_seccomp.worker_rules(can_open=can_open) if role == "worker" else jail_seccomp.compiler_rules()
    has_filter = reached.attempt("seccomp", lambda: jail_seccomp.install(jail_seccomp.assemble(rules)))
    is_apart = has_empty_root and has_identity and namespaces.entered.issuperset(NEEDED)
    return Confinement(
        level="rlimits-only" if not (has_landlock and has_filter) else "full" if is_apart else "landlock+seccomp",
        missing=tuple(reached.missing),
        descriptors=(jail_mounts.DESCRIPTORS if has_empty_root else "/proc/self/fd") if can_open else None,
    )


def _refusals(namespaces: Namespaces) -> list[str]:
    """Say what was refused, together what was refused for the same reason."""
    reasons: dict[int, list[str]] = {}
    for name, code in namespaces.refused.items():
        reasons.setdefault(code, []).append(name)
    return [f"namespaces ({', '.join(names)}): {os.strerror(code)}" for code, names in reasons.items()]


def _set_limits(limits: ProcessLimits, *, file_bytes: int) -> None:
    for name, amount in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_NPROC, limits.processes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_DATA, limits.data_bytes),
        (resource.RLIMIT_CPU, limits.cpu_s),
    ):
        if amount is not None:
            resource.setrlimit(name, (amount, amount))


def prepare() -> None:
    """Do what a sandbox process does first: let itself be killed first for want of memory, and die of ``abort()``.

    Process 1 of a PID namespace gets no signal that has its default effect, so that SIGABRT would pass by and the
    abort end in an illegal instruction. With ``_exit`` as its handler the process exits with the signal's number.
    """
    with suppress(OSError):  # without effect where /proc is read-only
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    libc.signal(int(signal.SIGABRT), ctypes.cast(libc._exit, ctypes.c_void_p))  # noqa: SLF001 - the C function's name


def thread_count() -> int:
    """Return how many threads this process has."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - names only, before the process serves


def ending(code: int) -> str:
    """Say in words how a sandbox process ended, from its exit status as `Child.poll` returns it."""
    if code == -signal.SIGSYS:
        return "it was ended by SIGSYS: a system call that its jail does not allow"
    if code < 0:
        with suppress(ValueError):
            return f"it was ended by {signal.Signals(-code).name}"
    return f"it exited with code {code}"


def reaches(level: Level, demanded: Level) -> bool:
    """Say whether a level is at least the demanded one."""
    return LEVELS.index(level) >= LEVELS.index(demanded)
