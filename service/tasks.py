"""Background tasks that are kept, whose failures are reported, and that end with their owner."""

import asyncio
from collections.abc import Coroutine
from enum import StrEnum, unique
from types import TracebackType
from typing import Any, Self

from service.logs import get_logger
from service.telemetry import TASK_FAILURES, Field, Telemetry, outside_of_traces
from templates.reasons import AgentFactoryError


@unique
class Event(StrEnum):
    """What this module logs."""

    TASK_FAILED = "task_failed"
    TASK_ENDED = "task_ended"


class TaskSupervisor:
    """Owns tasks that run beside requests. Use as ``async with TaskSupervisor() as tasks``; leaving cancels what runs.

    An essential task that fails, or ends, makes `wait_failed` return, and the process's main stops: nothing limps on
    half-alive. Other tasks may end, and their failures are logged and counted.
    """

    def __init__(self, telemetry: Telemetry | None = None) -> None:
        self._telemetry = telemetry
        self._tasks: set[asyncio.Task[None]] = set()
        self._essential: set[asyncio.Task[None]] = set()
        self._failed = asyncio.Event()
        self._first_failed = ""
        self._closing = False
        self._log = get_logger("tasks")

    def start(self, work: Coroutine[Any, Any, None], *, name: str, essential: bool = True) -> asyncio.Task[None]:
        """Run ``work``. A failure is logged once; see the class for what ``essential`` adds."""
        if self._closing:
            work.close()
            raise RuntimeError(f"expected a supervisor that is open, got one that closes: {name}")
        task = asyncio.get_running_loop().create_task(work, name=name, context=outside_of_traces())
        self._tasks.add(task)
        if essential:
            self._essential.add(task)
        task.add_done_callback(self._ended)
        return task

    @property
    def running(self) -> int:
        """How many tasks have not ended."""
        return len(self._tasks)

    async def wait_failed(self) -> str:
        """Wait until an essential task has failed or ended, and return its name."""
        await self._failed.wait()
        return self._first_failed

    async def close(self) -> None:
        """Cancel every task and wait for all of them. Idempotent."""
        self._closing = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        essential = task in self._essential
        self._essential.discard(task)
        name = task.get_name()
        error = None if task.cancelled() else task.exception()
        if error is not None:
            reason = str(error.reason) if isinstance(error, AgentFactoryError) else type(error).__name__
            self._log.error(Event.TASK_FAILED, **{Field.TASK: name, Field.REASON: reason}, exc_info=error)
            if self._telemetry is not None:
                self._telemetry.count(TASK_FAILURES, name)
        elif essential and not self._closing:
            self._log.error(Event.TASK_ENDED, **{Field.TASK: name})
        if essential and not self._closing and not self._failed.is_set():
            self._first_failed = name
            self._failed.set()
