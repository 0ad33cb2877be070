"""A worker that an attacker has taken over: the node's own supervisor, with this process in the place of the worker."""

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from client.selftest.attack import BreachError
from client.selftest.stage import Stage
from sandbox.frames import TO_WORKER, FrameReader, Op, Ready, frame, pack_done, pack_ready
from sandbox.limits import SandboxLimits
from sandbox.outcome import LogLine, Outcome, Usage
from sandbox.request import CompiledCode, InvocationRequest
from sandbox.supervisor import Worker, WorkerSettings

FINGERPRINT: Final = "a" * 64
LIMITS: Final = SandboxLimits(
    fuel=50_000_000, wall_ms=5_000, memory_bytes=16 << 20, input_bytes=65_536, output_bytes=65_536, log_bytes=4_096,
    host_calls=10,
)  # fmt: skip
_ENDS_WITHIN_S: Final = 10.0
_KILLED: Final = -9


class NoHost:
    """Grants nothing."""

    async def call(self, interface: str, function: str, argument: bytes) -> bytes:  # noqa: ARG002
        """Deny."""
        return b'{"error":{"kind":"denied","message":"nothing is granted"}}'


def request() -> InvocationRequest:
    """An ordinary invocation."""
    return InvocationRequest(code_id="code", abi="command", limits=LIMITS)


def done(number: int, output: bytes = b"", lines: tuple[LogLine, ...] = ()) -> bytes:
    """Say that an invocation ended."""
    return pack_done(number, output, None, Usage(), list(lines), logs_cut=False)


@dataclass(slots=True)
class TakenOver:
    """The supervisor, and the worker's end of its socket."""

    worker: Worker
    child: "subprocess.Popen[bytes]"
    socket: socket.socket
    reader: FrameReader

    async def frames(self) -> list[tuple[int, int, bytes]]:
        """Read what the node sent."""
        data = await asyncio.get_running_loop().sock_recv(self.socket, 1 << 20)
        return list(self.reader.feed(data))

    async def say(self, data: bytes) -> None:
        """Send to the node; it may hang up meanwhile."""
        with contextlib.suppress(ConnectionError):
            await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def load(self) -> None:
        """Let the node believe that its code was loaded."""
        code = CompiledCode(code=b"code", abi="command", module_sha256="0" * 64, engine_fingerprint=FINGERPRINT)
        loading = asyncio.ensure_future(self.worker.load("code", code))
        (_, number, _), *_ = await self.frames()
        await self.say(frame(Op.LOADED, number))
        await loading

    async def start(self) -> tuple["asyncio.Task[Outcome]", int]:
        """Load code and start an invocation; return its task and its number."""
        await self.load()
        task = asyncio.ensure_future(self.worker.invoke(request(), NoHost()))
        (_, number, _), *_ = await self.frames()
        return task, number


@asynccontextmanager
async def taken_over() -> AsyncIterator[TakenOver]:
    """A supervisor whose worker's process does nothing, and whose socket is ours."""
    child = subprocess.Popen(  # noqa: ASYNC220 - a supervisor takes a child that it can poll
        [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]
    )
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    try:
        with theirs:
            worker = Worker(WorkerSettings(), ours, child)
            worker._fingerprint = FINGERPRINT  # noqa: SLF001 - what `Worker.start` takes from READY
            hostile = TakenOver(worker, child, theirs, FrameReader(TO_WORKER))
            await hostile.say(frame(Op.READY, 0, pack_ready(Ready("rlimits-only", FINGERPRINT))))
            yield hostile
            await worker.stop()
    finally:
        child.kill()
        child.wait()


async def each_lie_ends_the_worker(stage: Stage, lies: Mapping[str, Callable[[int], bytes]]) -> None:
    """Tell each lie to a supervisor of its own, which must kill that worker and believe nothing more."""
    for name, lie in lies.items():
        async with taken_over() as hostile:
            task, number = await hostile.start()
            await hostile.say(lie(number))
            try:
                async with asyncio.timeout(_ENDS_WITHIN_S):
                    await hostile.worker.exited.wait()
                    outcome = await task
            except TimeoutError:
                raise BreachError(f"expected a worker that lies ({name}) to be killed, got one that lives") from None
            stage.note(f"{outcome} {hostile.worker.reason}")
            stage.require(hostile.child.returncode == _KILLED, f"expected SIGKILL for {name}")
            stage.require(outcome.failure is not None or outcome.output == b"", f"expected nothing of {name}")
            stage.require("\x1b" not in (hostile.worker.reason or ""), f"expected a printable reason for {name}")
