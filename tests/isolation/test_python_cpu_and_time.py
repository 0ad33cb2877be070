"""Python agents that burn time: each ends in its own failure kind, the worker stays healthy."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from sandbox.outcome import FailureKind
from sandbox.supervisor import Worker
from tests.isolation.python_agents import answer, is_healthy, python_worker, run

pytestmark = [pytest.mark.toolchain, pytest.mark.asyncio(loop_scope="module")]

LOOP = "def process(text):\n    while True: pass"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def worker() -> AsyncIterator[Worker]:
    async with python_worker() as started:
        yield started


async def test_an_endless_loop_runs_out_of_fuel(worker: Worker) -> None:
    outcome = await run(worker, LOOP, fuel=100_000_000)
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.FUEL
    assert outcome.usage.fuel >= 100_000_000
    assert await is_healthy(worker)


async def test_an_endless_loop_with_much_fuel_meets_its_deadline(worker: Worker) -> None:
    outcome = await run(worker, LOOP, fuel=10**15, wall_ms=200)
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.DEADLINE
    assert await is_healthy(worker)


async def test_a_loop_while_the_module_loads_is_stopped(worker: Worker) -> None:
    outcome = await run(worker, "while True: pass", fuel=100_000_000)
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.FUEL


async def test_swallowing_every_exception_does_not_outlive_the_limits(worker: Worker) -> None:
    outcome = await run(
        worker,
        """
        def process(text):
            while True:
                try:
                    while True: pass
                except BaseException:
                    pass
                finally:
                    process(text)
        """,
        fuel=200_000_000,
    )
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.FUEL


async def test_a_regular_expression_bomb_is_stopped(worker: Worker) -> None:
    outcome = await run(
        worker, "import re\ndef process(text): return str(re.match('(a+)+$', text))", "a" * 60 + "!", fuel=300_000_000
    )
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.FUEL


async def test_recursion_is_the_agents_own_error(worker: Worker) -> None:
    outcome = await run(worker, "def f(n): return f(n + 1)\ndef process(text): return f(0)")
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.GUEST_ERROR
    assert outcome.failure.message.startswith("RecursionError")


async def test_recursion_without_the_interpreters_limit_is_a_trap(worker: Worker) -> None:
    source = "import sys\nsys.setrecursionlimit(10**9)\ndef f(n): return f(n + 1)\ndef process(text): return f(0)"
    outcome = await run(worker, source)
    assert outcome.failure is not None
    assert outcome.failure.kind in {FailureKind.TRAP, FailureKind.MEMORY, FailureKind.GUEST_ERROR}
    assert await is_healthy(worker)


async def test_two_hundred_sleepers_are_suspended_together(worker: Worker) -> None:
    source = "import time\ndef process(text):\n    time.sleep(1)\n    return text"
    began = time.monotonic()
    outcomes = await asyncio.gather(*(run(worker, source, str(n), wall_ms=60_000) for n in range(200)))
    took = time.monotonic() - began
    assert [outcome.output for outcome in outcomes] == [str(n).encode() for n in range(200)]
    assert took < 100, "one after the other they would take 200 s"
    assert all(outcome.usage.guest_us < outcome.usage.wall_us for outcome in outcomes)


async def test_an_endless_sleep_ends_at_the_deadline(worker: Worker) -> None:
    outcome = await run(worker, "import time\ndef process(text): time.sleep(10**9)", wall_ms=100)
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.DEADLINE


async def test_cancelling_stops_a_sleeping_guest(worker: Worker) -> None:
    task = asyncio.ensure_future(run(worker, "import time\ndef process(text): time.sleep(60)", wall_ms=60_000))
    await asyncio.sleep(0)  # it has been sent
    assert worker.in_flight == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await is_healthy(worker)


async def test_hammering_the_clock_runs_out_of_calls(worker: Worker) -> None:
    outcome = await run(
        worker, "import time\ndef process(text):\n    while True: time.time()", fuel=10**12, wasi_calls=2_000
    )
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.HOST_CALLS


async def test_an_ordinary_agent_answers_beside_a_spinning_one(worker: Worker) -> None:
    spinner = asyncio.ensure_future(run(worker, LOOP, fuel=10**15, wall_ms=3_000))
    await asyncio.sleep(0)  # it has been sent
    assert worker.in_flight == 1
    for _ in range(20):
        assert await is_healthy(worker)
    assert not spinner.done(), "the ordinary agents did not have to wait for its end"
    outcome = await spinner
    assert outcome.failure is not None


async def test_time_moves_and_says_nothing_of_the_hosts_uptime(worker: Worker) -> None:
    outcome = await run(
        worker,
        """
        import time
        def process(text):
            start = time.monotonic()
            time.sleep(0.05)
            return {"start": start, "slept": time.monotonic() - start, "wall": time.time()}
        """,
    )
    found = answer(outcome)
    assert 1 <= found["start"] < 10
    assert found["slept"] >= 0.05
    assert abs(found["wall"] - time.time()) < 60
