"""A sandbox worker without a process: it answers as it is told, and dies when it is told."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable

from sandbox.outcome import Failure, FailureKind, LogLine, Outcome, Usage
from sandbox.request import CompiledCode, InvocationRequest
from sandbox.supervisor import HostCalls, WorkerError

Behaviour = Callable[[InvocationRequest, HostCalls], Awaitable[Outcome]]
_pids = itertools.count(1000)


async def echo(request: InvocationRequest, host: HostCalls) -> Outcome:
    return Outcome(request.input, None, Usage(fuel=10, guest_us=5, input_bytes=len(request.input)))


def compiled(module_sha256: str) -> CompiledCode:
    return CompiledCode(code=b"", abi="command", module_sha256=module_sha256, engine_fingerprint="fake")


async def until(true: Callable[[], object]) -> None:
    """Let other tasks run until ``true()``."""
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 -- a test has no event to wait for
            await asyncio.sleep(0.005)


class FakeWorker:
    def __init__(self, behaviour: Behaviour = echo) -> None:
        self.pid = next(_pids)
        self.exited = asyncio.Event()
        self.level = "rlimits-only"
        self.in_flight = 0
        self.loaded: list[str] = []
        self.dropped: list[str] = []
        self.requests: list[InvocationRequest] = []
        self.behaviour = behaviour
        self.late: Outcome | None = None  # what is said of an invocation that was cancelled
        self.is_silent = False  # gone, and its exit not yet noticed

    @property
    def reason(self) -> str | None:
        return "dead" if self.exited.is_set() or self.is_silent else None

    async def load(self, code_id: str, compiled: CompiledCode) -> None:
        if self.exited.is_set():
            raise WorkerError("gone")
        self.loaded.append(code_id)

    async def drop(self, code_id: str) -> None:
        self.dropped.append(code_id)

    async def invoke(
        self, request: InvocationRequest, host: HostCalls, on_log: Callable[[LogLine], None] | None = None
    ) -> Outcome:
        if self.reason is not None:
            raise WorkerError("gone")
        self.requests.append(request)
        self.in_flight += 1
        work = asyncio.ensure_future(self.behaviour(request, host))
        death = asyncio.ensure_future(self.exited.wait())
        try:
            try:
                await asyncio.wait({work, death}, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                if request.on_late is not None and self.late is not None:
                    asyncio.get_running_loop().call_soon(request.on_late, self.late)
                raise
            if work.done():
                outcome = work.result()
                if on_log is not None and request.stream_logs:
                    for line in outcome.logs:
                        on_log(line)
                return outcome
            return Outcome(None, Failure(FailureKind.CRASH, "the worker process ended"), Usage())
        finally:
            self.in_flight -= 1
            work.cancel()
            death.cancel()

    async def stop(self) -> None:
        self.exited.set()

    def die(self) -> None:
        self.exited.set()
