import asyncio
import io
import json
from collections.abc import Iterator

import pytest
import structlog

from service.logs import LogFormat, configure_logs
from service.status import UnavailableError
from service.tasks import TaskSupervisor
from service.telemetry import Telemetry, continued, current_trace_context
from tests.recorded_tracing import PARENT


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure_logs(form=LogFormat.JSON, stream=stream)
    yield stream
    structlog.reset_defaults()


async def forever() -> None:
    await asyncio.Event().wait()


async def fail(error: Exception) -> None:
    raise error


async def test_a_task_leaves_the_trace_behind_in_which_it_was_started() -> None:
    seen: list[str] = []

    async def look() -> None:
        seen.append(current_trace_context())

    async with TaskSupervisor() as tasks:
        with continued(PARENT):
            await tasks.start(look(), name="look", essential=False)
    assert seen == [""]


async def test_leaving_cancels_what_runs() -> None:
    async with TaskSupervisor() as tasks:
        first, second = tasks.start(forever(), name="a"), tasks.start(forever(), name="b", essential=False)
        await asyncio.sleep(0)
        assert tasks.running == 2
    assert first.cancelled()
    assert second.cancelled()
    assert tasks.running == 0


async def test_a_failed_essential_task_is_told_once_and_stops_main(log: io.StringIO) -> None:
    telemetry = Telemetry()
    async with TaskSupervisor(telemetry) as tasks:
        tasks.start(fail(ValueError("x")), name="renew_lease")
        assert await asyncio.wait_for(tasks.wait_failed(), 5) == "renew_lease"
    line = json.loads(log.getvalue())
    assert (line["event"], line["task"], line["reason"]) == ("task_failed", "renew_lease", "ValueError")
    assert b'agentfactory_task_failures_total{task="renew_lease"} 1.0' in telemetry.prometheus_text()


async def test_an_essential_task_that_ends_stops_main_too(log: io.StringIO) -> None:
    async with TaskSupervisor() as tasks:
        tasks.start(asyncio.sleep(0), name="follow")
        assert await asyncio.wait_for(tasks.wait_failed(), 5) == "follow"
    assert json.loads(log.getvalue())["event"] == "task_ended"


async def test_another_task_may_fail_and_is_reported(log: io.StringIO) -> None:
    async with TaskSupervisor() as tasks:
        task = tasks.start(fail(UnavailableError("x")), name="report", essential=False)
        await asyncio.wait([task])
        await asyncio.sleep(0)
        assert not tasks._failed.is_set()
    assert json.loads(log.getvalue())["reason"] == "UNAVAILABLE"


async def test_a_task_that_resists_cancellation_with_an_error_does_not_stop_the_close(log: io.StringIO) -> None:
    async def stubborn() -> None:
        try:
            await forever()
        finally:
            raise ValueError("in cleanup")

    tasks = TaskSupervisor()
    tasks.start(stubborn(), name="stubborn")
    await asyncio.sleep(0)
    await tasks.close()
    await tasks.close()
    assert "task_failed" in log.getvalue()


async def test_nothing_starts_once_it_closes() -> None:
    tasks = TaskSupervisor()
    await tasks.close()
    with pytest.raises(RuntimeError, match="closes"):
        tasks.start(forever(), name="late")
