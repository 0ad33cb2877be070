"""Processes that hold nothing: how a sandbox process is started, waited for and killed.

The parent starts a launcher, which enters namespaces and has a fresh interpreter begin in them with one socket, no
other descriptor, an empty environment and ``/`` as its working directory (``jail_launch``). That one imports what it
needs, makes its engine, and calls ``jail.confine`` before it reads a byte from the socket (ADR 11).
"""

import asyncio
import importlib.util
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from sandbox.jail import LEVELS, Confinement, Level, ProcessError, Role, reaches
from sandbox.jail_launch import INTERPRETER

__all__ = [
    "LEVELS",
    "Child",
    "Confinement",
    "Level",
    "ProcessError",
    "Role",
    "SandboxChild",
    "ending",
    "reaches",
    "start",
]

_PACKAGE: Final = str(Path(__file__).resolve().parent.parent)
_LAUNCH: Final = (
    f"import sys; sys.path.insert(0, {_PACKAGE!r}); from sandbox import jail_launch as launcher; launcher.main()"
)


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
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # a program around us that ignores SIGCHLD, or waits for everybody
                pid, status = self.pid, 0
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self.returncode = -code if code == signal.SIGABRT else code  # see `jail.prepare`
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
    """Start a fresh interpreter on ``module.main(descriptor, [launched, *arguments])``, the first for `jail.confine`.

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


def ending(code: int) -> str:
    """Say in words how a sandbox process ended, from its exit status as `Child.poll` returns it."""
    if code == -signal.SIGSYS:
        return "it was ended by SIGSYS: a system call that its jail does not allow"
    if code < 0:
        with suppress(ValueError):
            return f"it was ended by {signal.Signals(-code).name}"
    return f"it exited with code {code}"
