"""Worker processes: at least one per tenant in use, never shared between tenants, replaced when they die.

=========  ============================================================================================================
tenant's   started at a tenant's first invocation, or a spare that no one has used; more while those there are busy,
           fewer when fewer would do, each stopped when idle for long
leaving    a tenant's that is one too many: it finishes what runs in it, and is stopped
spares     started in advance, so that a first invocation does not wait for an interpreter
rehearsal  one that only dry-runs staged templates; it never becomes a tenant's
=========  ============================================================================================================

A worker that dies is replaced at the next use; after several deaths in a row the next start waits, longer each time.
Whoever dies takes its own invocations along and nothing else.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import Final, Protocol

from data_plane.admission.scaling import ScalingSettings, Step, WorkerScaling
from data_plane.agents.refusals import IsolationTooWeakError, WorkerUnavailableError
from sandbox.outcome import LogLine, Outcome
from sandbox.request import CompiledCode, InvocationRequest
from sandbox.supervisor import HostCalls, WorkerError
from sandbox.worker_errors import IsolationError
from service.logs import get_logger
from service.tasks import TaskSupervisor
from service.telemetry import WORKER_EXITS, WORKERS, Field, Telemetry
from templates.reasons import AgentFactoryError

REHEARSAL: Final = ""
"""Stands where a tenant's name stands; no tenant is called so."""

SPARE: Final = "-"
PRELOADED_MAX: Final = 16
"""With more modules than these active, a spare loads each when it is first needed."""

_WAIT_S_MAX: Final = 5.0

log = get_logger("workers")


@unique
class Event(StrEnum):
    """What this module logs."""

    WORKERS_GREW = "workers_grew"
    WORKERS_SHRANK = "workers_shrank"
    WORKER_STARTED = "worker_started"
    WORKER_DIED = "worker_died"
    WORKER_RETIRED = "worker_retired"
    WORKER_NOT_STARTED = "worker_not_started"
    NOT_PRELOADED = "worker_not_preloaded"


class WorkerGoneError(WorkerUnavailableError):
    """The worker was gone before the invocation was sent, so it may be sent to another one."""


class SandboxWorker(Protocol):
    """What the pool needs of `sandbox.supervisor.Worker`, and of the fake in tests."""

    pid: int
    exited: asyncio.Event

    @property
    def level(self) -> str: ...

    @property
    def reason(self) -> str | None: ...

    @property
    def in_flight(self) -> int: ...

    async def load(self, code_id: str, compiled: CompiledCode) -> None: ...

    async def invoke(
        self, request: InvocationRequest, host: HostCalls, on_log: Callable[[LogLine], None] | None = None
    ) -> Outcome: ...

    async def drop(self, code_id: str) -> None: ...

    async def stop(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """``per_tenant`` is the least that a tenant in use has; the most is its quota."""

    per_tenant: int = 1
    spares: int = 1
    workers_max: int = 64
    idle_s: float = 300.0
    scaling: ScalingSettings = field(default_factory=ScalingSettings)
    scaling_interval_s: float = 1.0
    backoff_s_first: float = 0.1
    backoff_s_max: float = 30.0
    forgiven_after_s: float = 30.0


@dataclass(slots=True, eq=False)
class PooledWorker:
    """One process, what it has loaded, and which templates run in it (by digest), for whoever asks after its death."""

    worker: SandboxWorker
    tenant: str
    started: float
    used: float
    invocations: int = 0
    loaded: set[str] = field(default_factory=set)
    loading: dict[str, asyncio.Lock] = field(default_factory=dict)
    running: dict[str, int] = field(default_factory=dict)
    victims: set[str] = field(default_factory=set)
    stopping: bool = False
    cpu_s: float = 0.0


@dataclass(slots=True)
class _Tenant:
    scaling: WorkerScaling
    workers: list[PooledWorker] = field(default_factory=list)
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    growing: bool = False
    deaths: int = 0
    died: float = 0.0
    not_before: float = 0.0


class WorkerPool:
    """Every method belongs to the event loop. Close it last: it stops every process."""

    def __init__(
        self,
        *,
        start: Callable[[], Awaitable[SandboxWorker]],
        code: Callable[[str], Awaitable[CompiledCode]],
        settings: PoolSettings,
        tasks: TaskSupervisor,
        telemetry: Telemetry,
        monotonic: Callable[[], float],
        most_of: Callable[[str], int] = lambda _tenant: 1,
        cpu_s: Callable[[int], float] = lambda _pid: 0.0,
    ) -> None:
        """``start`` starts a worker; ``code`` returns the compiled code of a module by its sha256.

        ``most_of`` says how many workers a tenant may have; ``cpu_s`` the processor time of a process so far, seconds.
        """
        self._most_of = most_of
        self._cpu_s = cpu_s
        self._scaled = monotonic()
        self._joining: list[PooledWorker] = []
        self._leaving: list[PooledWorker] = []
        self._start = start
        self._code = code
        self._settings = settings
        self._tasks = tasks
        self._telemetry = telemetry
        self._monotonic = monotonic
        self._tenants: dict[str, _Tenant] = {}
        self._spares: list[PooledWorker] = []
        self._spawning = 0
        self._closed = False
        self._modules: frozenset[str] = frozenset()
        self._wake = asyncio.Event()
        self.on_death: Callable[[str, tuple[str, ...]], None] = lambda _tenant, _templates: None
        telemetry.measure(WORKERS, lambda: len(self.workers()))

    def workers(self) -> tuple[PooledWorker, ...]:
        """Return every living process; a spare's tenant is ``-``, the rehearsal's is empty."""
        return (
            *(each for tenant in list(self._tenants.values()) for each in tenant.workers),  # metrics count in a thread
            *self._joining,
            *self._leaving,
            *self._spares,
        )

    def ready(self, tenant: str, module_sha256: str) -> PooledWorker | None:
        """Return a worker of ``tenant`` that has the module loaded, without waiting; None when there is none."""
        state = self._tenants.get(tenant)
        if state is None or not state.workers:
            return None
        workers = state.workers
        best = workers[0] if len(workers) == 1 else min(workers, key=lambda each: each.worker.in_flight)
        return best if module_sha256 in best.loaded else None

    async def obtain(self, tenant: str, module_sha256: str) -> PooledWorker:
        """Return a worker of ``tenant`` with the module loaded; starts one and loads as needed.

        Raises:
            WorkerUnavailableError: none could be had in time.
        """
        pooled = self.ready(tenant, module_sha256)
        if pooled is not None:
            return pooled
        state = self._state_of(tenant)
        async with state.starting:
            if not state.workers:
                state.workers.append(await self._new_worker(tenant, state))
        pooled = min(state.workers, key=lambda each: each.worker.in_flight, default=None)
        if pooled is None:
            raise WorkerUnavailableError("expected a worker, got one that died at once", retry_s=1.0)
        await self._load(pooled, module_sha256)
        return pooled

    async def invoke(
        self,
        pooled: PooledWorker,
        template_sha256: str,
        request: InvocationRequest,
        host: HostCalls,
        on_log: Callable[[LogLine], None] | None = None,
    ) -> Outcome:
        """Run one invocation; raises `WorkerGoneError` if the worker was gone before it was sent."""
        running = pooled.running
        running[template_sha256] = running.get(template_sha256, 0) + 1
        pooled.invocations += 1
        ran = True
        try:
            return await pooled.worker.invoke(request, host, on_log)
        except WorkerError as error:
            ran = False
            raise self._gone(pooled, error) from error
        finally:
            pooled.used = self._monotonic()
            if ran and pooled.worker.reason is not None:  # its socket may close a moment before its exit is noticed
                pooled.victims.add(template_sha256)
            left = running[template_sha256] - 1
            if left:
                running[template_sha256] = left
            else:
                del running[template_sha256]

    async def keep_only(self, modules: frozenset[str]) -> None:
        """Drop compiled code that no active template needs; invocations in flight finish on it."""
        self._modules = modules
        self._wake.set()
        for pooled in self.workers():
            for module in pooled.loaded - modules:
                pooled.loaded.discard(module)
                if not pooled.worker.exited.is_set():
                    await pooled.worker.drop(module)

    async def run(self, *, rehearsing: bool) -> None:
        """Keep the spares, and the rehearsal worker if updates may come, up and retire idle workers, for ever."""
        while True:
            self._wake.clear()
            await self._tidy()
            self._scale()
            if rehearsing:
                await self._keep_rehearsal()
            try:
                async with asyncio.timeout(1.0):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def close(self) -> None:
        """Stop every process."""
        self._closed = True
        for pooled in self.workers():
            pooled.stopping = True
        await asyncio.gather(*(pooled.worker.stop() for pooled in self.workers()))
        self._tenants.clear()
        self._joining.clear()
        self._leaving.clear()
        self._spares.clear()

    async def _tidy(self) -> None:
        now = self._monotonic()
        for tenant, state in list(self._tenants.items()):
            for pooled in list(state.workers):
                idle = not pooled.worker.in_flight and now - pooled.used > self._settings.idle_s
                if idle and tenant != REHEARSAL:
                    state.workers.remove(pooled)
                    await self._retire(pooled)
            if not state.workers and not state.starting.locked() and now - state.died > self._settings.forgiven_after_s:
                del self._tenants[tenant]
        for pooled in [each for each in self._leaving if not each.worker.in_flight]:
            self._leaving.remove(pooled)
            await self._retire(pooled)
        while len(self._spares) + self._spawning < self._settings.spares and self._has_room():
            try:
                self._spares.append(await self._spawn(SPARE))
            except WorkerUnavailableError:
                return  # logged; tried again in a second
        if len(self._modules) <= PRELOADED_MAX:
            for pooled in list(self._spares):
                for module in self._modules - pooled.loaded:
                    await self._preload(pooled, module)

    async def _keep_rehearsal(self) -> None:
        state = self._state_of(REHEARSAL)
        if state.workers or state.starting.locked() or self._monotonic() < state.not_before:
            return
        async with state.starting:
            if not state.workers:
                with suppress(WorkerUnavailableError):  # logged; tried again in a second
                    state.workers.append(await self._spawn(REHEARSAL))

    async def _preload(self, pooled: PooledWorker, module: str) -> None:
        try:
            await self._load(pooled, module)
        except AgentFactoryError as error:
            log.warning(Event.NOT_PRELOADED, **{Field.PID: pooled.worker.pid, Field.ERROR: error.message})

    async def _retire(self, pooled: PooledWorker) -> None:
        pooled.stopping = True
        await pooled.worker.stop()
        log.info(Event.WORKER_RETIRED, **{Field.PID: pooled.worker.pid, Field.TENANT: pooled.tenant})

    def _state_of(self, tenant: str) -> _Tenant:
        state = self._tenants.get(tenant)
        if state is None:
            state = self._tenants[tenant] = _Tenant(WorkerScaling(self._settings.scaling))
        return state

    def _scale(self) -> None:
        """Start or end a worker of each tenant whose load asks for it, by what its processes used since last time."""
        now = self._monotonic()
        interval_s = now - self._scaled
        if interval_s < self._settings.scaling_interval_s:
            return
        self._scaled = now
        for tenant, state in list(self._tenants.items()):
            used_s = 0.0
            for pooled in state.workers:
                cpu_s = self._cpu_s(pooled.worker.pid)
                used_s += max(0.0, cpu_s - pooled.cpu_s)
                pooled.cpu_s = cpu_s
            if tenant == REHEARSAL or not state.workers or state.starting.locked():
                continue
            step = state.scaling.step(
                workers=len(state.workers),
                least=self._settings.per_tenant,
                most=max(1, self._most_of(tenant)),
                in_flight=sum(each.worker.in_flight for each in state.workers),
                cpu_s=used_s,
                interval_s=interval_s,
            )
            if step is Step.GROW:
                self._grow(tenant, state)
            elif step is Step.SHRINK:
                self._shrink(tenant, state)

    def _shrink(self, tenant: str, state: _Tenant) -> None:
        """Give nothing new to the worker that has least to do, and stop it once it has nothing."""
        pooled = min(state.workers, key=lambda each: each.worker.in_flight)
        state.workers.remove(pooled)
        self._leaving.append(pooled)
        log.info(Event.WORKERS_SHRANK, **{Field.TENANT: tenant, Field.WORKERS: len(state.workers)})

    def _grow(self, tenant: str, state: _Tenant) -> None:
        if state.growing or not self._has_room():
            return
        state.growing = True

        async def grow() -> None:
            try:
                pooled = await self._new_worker(tenant, state)
                self._joining.append(pooled)
                for module in sorted({each for other in state.workers for each in other.loaded}):
                    await self._preload(pooled, module)  # whoever gets it next need not wait for that
                if pooled in self._joining:  # not, if it died meanwhile or everything was closed
                    self._joining.remove(pooled)
                    state.workers.append(pooled)
                    log.info(Event.WORKERS_GREW, **{Field.TENANT: tenant, Field.WORKERS: len(state.workers)})
            except WorkerUnavailableError:
                pass  # logged; those that there are carry on
            finally:
                state.growing = False

        self._tasks.start(grow(), name="grow-workers", essential=False)

    async def _new_worker(self, tenant: str, state: _Tenant) -> PooledWorker:
        pause_s = state.not_before - self._monotonic()
        if pause_s > _WAIT_S_MAX:
            raise WorkerUnavailableError("expected a worker, got several that died in a row", retry_s=pause_s)
        if pause_s > 0:
            await asyncio.sleep(pause_s)
        while self._spares:
            pooled = self._spares.pop()
            self._wake.set()
            if not pooled.worker.exited.is_set():
                pooled.tenant = tenant
                pooled.used = self._monotonic()
                return pooled
        if not self._has_room() and not await self._make_room():
            raise WorkerUnavailableError(
                f"expected at most {self._settings.workers_max} workers, all of them busy", retry_s=1.0
            )
        return await self._spawn(tenant)

    def _has_room(self) -> bool:
        return len(self.workers()) + self._spawning < self._settings.workers_max

    async def _make_room(self) -> bool:
        """Stop the worker that has been idle longest, of whichever tenant; say whether there was one."""
        idle = [
            (pooled.used, state, pooled)
            for tenant, state in self._tenants.items()
            for pooled in state.workers
            if not pooled.worker.in_flight and tenant != REHEARSAL
        ]
        if not idle:
            return False
        _, state, pooled = min(idle, key=lambda each: each[0])
        state.workers.remove(pooled)
        await self._retire(pooled)
        return True

    async def _spawn(self, tenant: str) -> PooledWorker:
        self._spawning += 1
        try:
            worker = await self._start()
        except WorkerError as error:
            log.warning(Event.WORKER_NOT_STARTED, **{Field.TENANT: tenant, Field.ERROR: str(error)})
            self._count_death(tenant)
            refusal = IsolationTooWeakError if isinstance(error, IsolationError) else WorkerUnavailableError
            raise refusal(f"expected a worker to start, got: {error}", retry_s=1.0) from error
        finally:
            self._spawning -= 1
        now = self._monotonic()
        pooled = PooledWorker(worker=worker, tenant=tenant, started=now, used=now)
        if self._closed:
            await worker.stop()
            raise WorkerUnavailableError("the node is stopping")
        self._tasks.start(self._watch(pooled), name=f"worker-{worker.pid}", essential=False)
        log.info(Event.WORKER_STARTED, **{Field.PID: worker.pid, Field.TENANT: tenant, Field.ISOLATION: worker.level})
        return pooled

    async def _watch(self, pooled: PooledWorker) -> None:
        await pooled.worker.exited.wait()
        state = self._tenants.get(pooled.tenant)
        if state is not None and pooled in state.workers:
            state.workers.remove(pooled)
        for others in (self._spares, self._joining, self._leaving):
            if pooled in others:
                others.remove(pooled)
        self._telemetry.count(WORKER_EXITS, "stopped" if pooled.stopping else "died")
        if pooled.stopping:
            return
        self._count_death(pooled.tenant)
        self._wake.set()
        await asyncio.sleep(0.05)  # invocations that ended with it get their turn to say which template they ran
        templates = tuple(pooled.victims | pooled.running.keys())
        log.warning(
            Event.WORKER_DIED,
            **{Field.PID: pooled.worker.pid, Field.TENANT: pooled.tenant, Field.ERROR: pooled.worker.reason},
        )
        if templates:
            self.on_death(pooled.tenant, templates)

    def _count_death(self, tenant: str) -> None:
        """The first death costs nothing: the next invocation gets a fresh worker at once."""
        now = self._monotonic()
        state = self._state_of(tenant)
        if now - state.died > self._settings.forgiven_after_s:
            state.deaths = 0
        state.died = now
        if state.deaths > 0:
            pause_s = self._settings.backoff_s_first * 2 ** min(state.deaths - 1, 16)
            state.not_before = now + min(pause_s, self._settings.backoff_s_max)
        state.deaths += 1

    def _gone(self, pooled: PooledWorker, error: WorkerError) -> WorkerUnavailableError:
        """Give a worker that is gone to nobody any more, which its process's exit would say a moment later."""
        if pooled.worker.reason is None:
            return WorkerUnavailableError(f"expected a worker that takes this code, got: {error}")
        state = self._tenants.get(pooled.tenant)
        if state is not None and pooled in state.workers:
            state.workers.remove(pooled)
        return WorkerGoneError(f"expected a worker, got: {error}", retry_s=0.1)

    async def _load(self, pooled: PooledWorker, module_sha256: str) -> None:
        if module_sha256 in pooled.loaded:
            return
        turn = pooled.loading.setdefault(module_sha256, asyncio.Lock())
        async with turn:
            if module_sha256 in pooled.loaded:
                return
            compiled = await self._code(module_sha256)
            try:
                await pooled.worker.load(module_sha256, compiled)
            except WorkerError as error:
                raise self._gone(pooled, error) from error
            pooled.loaded.add(module_sha256)
        pooled.loading.pop(module_sha256, None)
