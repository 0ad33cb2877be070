"""Workers by tenant: never shared, replaced when they die, retired when idle, and no more than there may be."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_plane.agents.refusals import WorkerUnavailableError
from data_plane.worker_pool import REHEARSAL, PooledWorker, PoolSettings, WorkerGoneError, WorkerPool
from sandbox.outcome import Failure, FailureKind, Outcome, Usage
from sandbox.request import CompiledCode, InvocationRequest
from sandbox.supervisor import HostCalls, WorkerError
from service.tasks import TaskSupervisor
from service.telemetry import Telemetry
from tests.unit.data_plane.fake_worker import FakeWorker, compiled, until

MODULE = "m" * 64
OTHER = "o" * 64


class NoHost:
    async def call(self, interface: str, function: str, argument: bytes) -> bytes:
        return b"{}"


class World:
    def __init__(self, tasks: TaskSupervisor) -> None:
        self.tasks = tasks
        self.now = 1_000.0
        self.started: list[FakeWorker] = []
        self.failing = False
        self.deaths: list[tuple[str, tuple[str, ...]]] = []
        self.code_asked: list[str] = []
        self.code_gate = asyncio.Event()
        self.code_gate.set()
        self.cpu_s: dict[int, float] = {}
        self.most = 1

    def pool(self, **changes: float) -> WorkerPool:
        async def start() -> FakeWorker:
            if self.failing:
                raise WorkerError("no memory")
            worker = FakeWorker()
            self.started.append(worker)
            return worker

        async def code(module: str) -> CompiledCode:
            self.code_asked.append(module)
            await asyncio.sleep(0)
            await self.code_gate.wait()
            return compiled(module)

        pool = WorkerPool(
            start=start,
            code=code,
            settings=PoolSettings(**changes),  # type: ignore[arg-type]
            tasks=self.tasks,
            telemetry=Telemetry(),
            monotonic=lambda: self.now,
            most_of=lambda _tenant: self.most,
            cpu_s=lambda pid: self.cpu_s.get(pid, 0.0),
        )
        pool.on_death = lambda tenant, templates: self.deaths.append((tenant, templates))
        return pool


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with TaskSupervisor() as tasks:
        yield World(tasks)


async def invoke(pool: WorkerPool, pooled: PooledWorker, template: str = "t") -> Outcome:
    return await pool.invoke(pooled, template, InvocationRequest(code_id=MODULE, abi="command"), NoHost())


async def test_a_tenant_keeps_its_worker_and_never_meets_another(world: World) -> None:
    pool = world.pool(spares=0)
    first, again, other = [await pool.obtain(tenant, MODULE) for tenant in ("acme", "acme", "rival")]
    assert first is again
    assert first.worker is not other.worker
    assert pool.ready("acme", MODULE) is first
    assert pool.ready("acme", OTHER) is None
    assert pool.ready("nobody", MODULE) is None


async def test_code_is_loaded_once_however_many_ask_at_once(world: World) -> None:
    pool = world.pool(spares=0)
    found = await asyncio.gather(*(pool.obtain("acme", MODULE) for _ in range(20)))
    assert len({id(each) for each in found}) == 1
    assert world.code_asked == [MODULE]
    assert world.started[0].loaded == [MODULE]
    assert len(world.started) == 1


async def test_a_spare_is_given_away_once_and_replaced(world: World) -> None:
    pool = world.pool(spares=1)
    world.tasks.start(pool.run(rehearsing=False), name="pool", essential=False)
    await until(lambda: len(world.started) == 1)
    pooled = await pool.obtain("acme", MODULE)
    assert pooled.worker is world.started[0]
    assert pooled.tenant == "acme"
    await until(lambda: len(world.started) == 2)
    other = await pool.obtain("rival", MODULE)
    assert other.worker is world.started[1]


async def test_spares_and_the_rehearsal_worker_are_kept_up_and_spares_load_what_is_active(world: World) -> None:
    pool = world.pool(spares=1)
    await pool.keep_only(frozenset({MODULE}))
    world.tasks.start(pool.run(rehearsing=True), name="pool", essential=False)
    await until(lambda: {each.tenant for each in pool.workers()} == {REHEARSAL, "-"})
    spare = next(each for each in pool.workers() if each.tenant == "-")
    await until(lambda: MODULE in spare.loaded)
    for pooled in pool.workers():
        assert isinstance(pooled.worker, FakeWorker)
        pooled.worker.die()
    await until(lambda: len(world.started) == 4)
    assert {each.tenant for each in pool.workers()} == {REHEARSAL, "-"}


async def test_a_dead_worker_is_replaced_at_once_and_its_templates_are_named(world: World) -> None:
    pool = world.pool(spares=0)
    pooled = await pool.obtain("acme", MODULE)

    async def forever(request: InvocationRequest, host: HostCalls) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    world.started[0].behaviour = forever
    running = asyncio.ensure_future(invoke(pool, pooled, "guilty"))
    await until(lambda: world.started[0].in_flight == 1)
    world.started[0].die()
    outcome = await running
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.CRASH
    await until(lambda: world.deaths)
    assert world.deaths == [("acme", ("guilty",))]
    fresh = await pool.obtain("acme", MODULE)
    assert fresh.worker is world.started[1]


async def test_what_ran_is_charged_even_if_the_answer_comes_before_the_exit(world: World) -> None:
    pool = world.pool(spares=0)
    pooled = await pool.obtain("acme", MODULE)

    async def breaks(request: InvocationRequest, host: HostCalls) -> Outcome:
        world.started[0].is_silent = True  # its socket is closed; nobody has heard of its exit yet
        return Outcome(None, Failure(FailureKind.CRASH, "the worker process ended"), Usage())

    world.started[0].behaviour = breaks
    await invoke(pool, pooled, "guilty")
    world.started[0].die()
    await until(lambda: world.deaths)
    assert world.deaths == [("acme", ("guilty",))]


async def test_a_worker_that_is_gone_is_a_typed_refusal(world: World) -> None:
    pool = world.pool(spares=0)
    pooled = await pool.obtain("acme", MODULE)
    world.started[0].exited.set()
    with pytest.raises(WorkerGoneError):
        await invoke(pool, pooled)
    assert pool.workers() == ()


async def test_code_that_a_living_worker_refuses_is_not_tried_elsewhere(world: World) -> None:
    pool = world.pool(spares=0)
    await pool.obtain("acme", MODULE)

    async def refuse(code_id: str, compiled: CompiledCode) -> None:
        raise WorkerError("other engine")

    world.started[0].load = refuse  # type: ignore[method-assign]
    with pytest.raises(WorkerUnavailableError) as refused:
        await pool.obtain("acme", OTHER)
    assert not isinstance(refused.value, WorkerGoneError)
    assert len(pool.workers()) == 1


async def test_deaths_in_a_row_make_the_next_start_wait_and_a_pause_forgives(world: World) -> None:
    pool = world.pool(spares=0, backoff_s_first=10.0, forgiven_after_s=60.0)
    for _ in range(2):
        pooled = await pool.obtain("acme", MODULE)
        assert isinstance(pooled.worker, FakeWorker)
        pooled.worker.die()
        await until(lambda: not pool.workers())
    with pytest.raises(WorkerUnavailableError) as refused:
        await pool.obtain("acme", MODULE)
    assert refused.value.retry_s == pytest.approx(10.0)
    assert (await pool.obtain("rival", MODULE)).tenant == "rival"
    world.now += 61
    assert (await pool.obtain("acme", MODULE)).tenant == "acme"


async def test_workers_that_do_not_start_are_a_typed_refusal(world: World) -> None:
    pool = world.pool(spares=0)
    world.failing = True
    with pytest.raises(WorkerUnavailableError, match="no memory"):
        await pool.obtain("acme", MODULE)
    world.failing = False
    assert (await pool.obtain("acme", MODULE)).tenant == "acme"


async def test_idle_workers_are_retired_and_busy_ones_are_not(world: World) -> None:
    pool = world.pool(spares=0, idle_s=100.0)
    await pool.obtain("idle", MODULE)
    await pool.obtain("busy", MODULE)
    world.started[1].in_flight = 1
    world.now += 101
    await pool._tidy()
    assert [each.tenant for each in pool.workers()] == ["busy"]
    assert world.started[0].exited.is_set()
    assert world.deaths == []


async def test_past_the_ceiling_the_longest_idle_worker_makes_room_or_there_is_none(world: World) -> None:
    pool = world.pool(spares=0, workers_max=2)
    await pool.obtain("one", MODULE)
    world.now += 1
    await pool.obtain("two", MODULE)
    await pool.obtain("three", MODULE)
    assert sorted(each.tenant for each in pool.workers()) == ["three", "two"]
    for worker in world.started[1:]:
        worker.in_flight = 1
    with pytest.raises(WorkerUnavailableError, match="at most 2"):
        await pool.obtain("four", MODULE)


def second(pool: WorkerPool, world: World, *, busy_s: float) -> None:
    """One second in which every worker of the pool used ``busy_s`` of processor time."""
    world.now += 1.0
    for pooled in pool.workers():
        world.cpu_s[pooled.worker.pid] = world.cpu_s.get(pooled.worker.pid, 0.0) + busy_s
    pool._scale()


async def test_a_busy_tenant_gets_a_second_worker_and_a_calm_one_gives_it_back(world: World) -> None:
    world.most = 2
    pool = world.pool(spares=0)
    await pool.obtain("acme", MODULE)
    world.started[0].in_flight = 3
    for _ in range(10):
        second(pool, world, busy_s=1.0)
        await asyncio.sleep(0)
    await until(lambda: len(pool._tenants["acme"].workers) == 2)
    assert len(world.started) == 2
    assert world.started[1].loaded == [MODULE]  # before it is given anything to do
    pooled = pool.ready("acme", MODULE)
    assert pooled is not None
    assert pooled.worker is world.started[1]
    world.started[1].in_flight = 1
    for _ in range(40):
        second(pool, world, busy_s=0.01)
    assert len(pool._tenants["acme"].workers) == 1
    assert pool.ready("acme", MODULE) is not pooled
    await pool._tidy()
    assert not world.started[1].exited.is_set()  # something still runs in it
    assert len(pool.workers()) == 2
    world.started[1].in_flight = 0
    await pool._tidy()
    assert world.started[1].exited.is_set()
    assert len(pool.workers()) == 1
    assert world.deaths == []


async def test_a_tenant_never_has_more_workers_than_its_quota(world: World) -> None:
    pool = world.pool(spares=0)
    await pool.obtain("acme", MODULE)
    world.started[0].in_flight = 900
    for _ in range(20):
        second(pool, world, busy_s=1.0)
        await asyncio.sleep(0)
    assert len(world.started) == 1


async def test_a_worker_that_joins_is_stopped_when_everything_is(world: World) -> None:
    world.most = 2
    pool = world.pool(spares=0, per_tenant=2)
    await pool.obtain("acme", MODULE)
    world.code_gate.clear()
    second(pool, world, busy_s=0.0)
    await until(lambda: len(world.started) == 2)
    assert len(pool.workers()) == 2
    await pool.close()
    assert world.started[1].exited.is_set()


async def test_a_death_whose_socket_closed_before_the_exit_is_charged_to_what_ran(world: World) -> None:
    pool = world.pool(spares=0)
    pooled = await pool.obtain("acme", MODULE)
    worker = pooled.worker
    assert isinstance(worker, FakeWorker)

    async def close_its_socket(request: InvocationRequest, host: HostCalls) -> Outcome:
        worker.is_silent = True
        return Outcome(None, Failure(FailureKind.CRASH, "the worker process ended"), Usage())

    worker.behaviour = close_its_socket
    await invoke(pool, pooled, "culprit")
    with pytest.raises(WorkerUnavailableError):
        await invoke(pool, pooled, "too late to have done it")
    worker.die()
    await until(lambda: world.deaths)
    assert world.deaths == [("acme", ("culprit",))]

    world.code_gate.set()


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("obtain"), st.sampled_from(["acme", "rival", "third"])),
            st.tuples(st.sampled_from(["idle", "tidy", "die", "busy"]), st.integers(0, 5)),
        ),
        max_size=30,
    )
)
@settings(deadline=None, max_examples=60)
def test_no_process_ever_serves_two_tenants(steps: list[tuple[str, object]]) -> None:
    served: dict[int, set[str]] = {}

    async def play() -> None:
        async with TaskSupervisor() as tasks:
            world = World(tasks)
            world.most = 2
            pool = world.pool(spares=1, workers_max=4, idle_s=5.0)
            for step, subject in steps:
                if step == "obtain":
                    with suppress(WorkerUnavailableError):
                        pooled = await pool.obtain(str(subject), MODULE)
                        served.setdefault(pooled.worker.pid, set()).add(str(subject))
                else:
                    await happen(world, pool, step, int(str(subject)))
                for pooled in pool.workers():
                    if pooled.tenant != "-":
                        served.setdefault(pooled.worker.pid, set()).add(pooled.tenant)
            await pool.close()

    asyncio.run(play())
    assert all(len(tenants) == 1 for tenants in served.values()), served


async def happen(world: World, pool: WorkerPool, step: str, number: int) -> None:
    match step:
        case "idle":
            world.now += 6.0
            await pool._tidy()
        case "tidy":
            await pool._tidy()
        case "busy":
            for worker in world.started:
                worker.in_flight = number
            second(pool, world, busy_s=1.0)
            await asyncio.sleep(0)
            for worker in world.started:
                worker.in_flight = 0
        case _ if world.started:
            world.started[number % len(world.started)].die()
            await asyncio.sleep(0)
