"""Background tasks that are kept, whose failures are reported, and that end with their owner."""

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self


class TaskSupervisor:
    """Owns tasks that run beside requests. Use as ``async with TaskSupervisor() as tasks``; leaving cancels what still runs.

    An essential task that fails, or ends, makes ``wait_failed`` return, and the process's main stops: nothing limps on half-alive.
    """

    def start(self, work: Coroutine[Any, Any, None], *, name: str, essential: bool = True) -> asyncio.Task[None]:
        """Run ``work``. A failure is logged once; see the class for what ``essential`` adds."""
        raise NotImplementedError

    async def wait_failed(self) -> str:
        """Wait until an essential task has failed and return its name."""
        raise NotImplementedError

    async def close(self) -> None:
        """Cancel every task and wait for all of them."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
