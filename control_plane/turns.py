"""One change of state at a time, each of them whole: whoever asked may go away, the work does not stop half-way."""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from service.logs import get_logger
from service.telemetry import Field

T = TypeVar("T")

log = get_logger("turns")


class Turns:
    """``await turns.take(lambda: work())``: runs ``work`` when everything asked before has ended.

    A cancelled caller (an RPC whose client went away) leaves the work running: a thread that commits cannot be
    recalled, and memory must not fall behind the disk. Leaving the context waits for what still runs.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._running: set[asyncio.Future[Any]] = set()

    async def take(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async def alone() -> T:
            async with self._lock:
                return await work()

        running = asyncio.ensure_future(alone())
        self._running.add(running)
        running.add_done_callback(self._ended)
        return await asyncio.shield(running)

    def _ended(self, running: "asyncio.Future[Any]") -> None:
        self._running.discard(running)
        if not running.cancelled() and (error := running.exception()) is not None:
            log.debug("turn_failed", **{Field.ERROR: type(error).__name__})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._running:
            await asyncio.wait(self._running)
