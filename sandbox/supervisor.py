"""The node's side of one worker process. It runs in the node's event loop and never runs guest code."""

import asyncio
from dataclasses import dataclass
from typing import Literal, Protocol, Self

from sandbox.outcome import Outcome
from sandbox.request import CompiledCode, InvocationRequest

Level = Literal["full", "landlock+seccomp", "rlimits-only"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """How a worker process is made.

    ``slots`` invocations are in flight at once, further ones wait in the worker; ``jail`` is the lowest level of
    isolation that is acceptable: a worker that reaches less is refused.
    """

    slots: int = 1_000
    jail: Level = "rlimits-only"
    grace_ms: int = 1_000
    start_timeout_s: float = 20.0
    load_timeout_s: float = 60.0
    memory_slot_bytes: int = 256 << 20


class WorkerError(Exception):
    """The worker could not do what was asked: it did not start, refused code, or is gone."""


class HostCalls(Protocol):
    """Carries out the host calls of one invocation."""

    async def call(self, interface: str, function: str, argument: bytes) -> bytes:
        """Return the JSON answer to one host call, ``{"ok": …}`` or ``{"error": {"kind", "message"}}``.

        It is cancelled when the invocation ends first (deadline, cancellation, death of the worker).
        """
        ...


class Worker:
    """One sandbox process and the invocations in it."""

    pid: int
    level: Level
    exited: asyncio.Event

    @classmethod
    async def start(cls, settings: WorkerSettings) -> Self:
        """Start a worker: fresh interpreter, nothing inherited but one socket, rlimits.

        Raises:
            WorkerError: it did not report ready in time, or reached a lower level than demanded.
        """
        raise NotImplementedError

    @property
    def in_flight(self) -> int:
        """Invocations sent and not yet answered."""
        raise NotImplementedError

    async def load(self, code_id: str, compiled: CompiledCode) -> None:
        """Hand compiled code to the worker, as a sealed memfd. Loading the same ``code_id`` again does nothing.

        Raises:
            WorkerError: the worker refused the code (other engine, unknown import) or is gone.
        """
        raise NotImplementedError

    async def invoke(self, request: InvocationRequest, host: HostCalls) -> Outcome:
        """Run one invocation to its outcome; failures of the guest are outcomes, not exceptions.

        Cancelling the awaiting task stops the guest.

        Raises:
            WorkerError: the code was not loaded, or the worker was gone before the invocation was sent.
        """
        raise NotImplementedError

    async def drop(self, code_id: str) -> None:
        """Forget loaded code; invocations in flight finish on it."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Stop the process; what is still in flight ends as CANCELLED."""
        raise NotImplementedError
