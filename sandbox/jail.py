"""The jail: what a sandbox process takes from itself, for good, before it reads a byte from its socket (ADR 11).

This is the side of the process that is locked away; ``process`` is that of whoever starts it.
"""

import ctypes
import os
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal

from sandbox import jail_credentials, jail_landlock, jail_mounts, jail_seccomp
from sandbox.jail_namespaces import NEEDED, USER, Namespaces, enter_user_unmapped
from sandbox.jail_syscalls import libc, prctl

Level = Literal["full", "landlock+seccomp", "rlimits-only"]
LEVELS: Final[tuple[Level, ...]] = ("rlimits-only", "landlock+seccomp", "full")
"""Weakest first."""

Role = Literal["worker", "compiler"]

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38


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


@dataclass(slots=True)
class _Reached:
    """Collects, while a process confines itself, what was refused."""

    missing: list[str] = field(default_factory=list)

    def attempt(self, what: str, step: Callable[[], object]) -> bool:
        try:
            step()
        except OSError as error:
            self.missing.append(f"{what}: {error.strerror}")
            return False
        return True


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
    path = "/proc/self/oom_score_adj"  # without effect where /proc is read-only
    with suppress(OSError), open(path, "w", encoding="ascii") as file:  # noqa: PTH123 - pathlib costs every start
        file.write("1000")
    libc.signal(int(signal.SIGABRT), ctypes.cast(libc._exit, ctypes.c_void_p))  # noqa: SLF001 - the C function's name


def thread_count() -> int:
    """Return how many threads this process has."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - names only, before the process serves


def reaches(level: Level, demanded: Level) -> bool:
    """Say whether a level is at least the demanded one."""
    return LEVELS.index(level) >= LEVELS.index(demanded)
