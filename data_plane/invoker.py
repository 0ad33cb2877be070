"""The way of one invocation: admitted, run in a worker of its tenant, its host calls carried out, its cost noted.

Everything that does not depend on the request was computed when its template was activated. Nothing here touches the
disk before the answer is on its way, unless the guest asks for its state.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final, Protocol

from data_plane.activation.generation import ActiveGeneration, ActiveTemplate, LeaseClock
from data_plane.admission.callers import CallerRoom
from data_plane.admission.effective import EffectiveLimits
from data_plane.admission.quarantine import Quarantine
from data_plane.admission_gate import AdmissionGate
from data_plane.agents.agent import AgentScope
from data_plane.agents.invocations import OK, InvocationRecord, LogRecord, UsageRecord
from data_plane.agents.ports import InvocationLog
from data_plane.agents.refusals import (
    ConcurrencyExhaustedError,
    DrainingError,
    LeaseExpiredError,
    NotServingError,
    QuarantinedError,
    UnknownTemplateError,
)
from data_plane.broker.agents_grant import Budget
from data_plane.broker.amounts import Amounts
from data_plane.invocation_metrics import InvocationMetrics
from data_plane.recording_port import Recorder, RecorderFactory
from data_plane.sandbox_span import describe_sandbox
from data_plane.schema_checks import checked_output, misfit
from data_plane.worker_pool import WorkerGoneError, WorkerPool
from sandbox.limits import SandboxLimits
from sandbox.outcome import Failure, FailureKind, LogLine, Outcome, Usage
from sandbox.request import InvocationRequest
from sandbox.supervisor import HostCalls
from service.logs import get_logger
from service.telemetry import (
    INVOCATIONS_IN_FLIGHT,
    Field,
    SpanName,
    Telemetry,
    current_trace_context,
)
from templates.acceptance import effective_revocations
from templates.document import LeaseExpiry
from templates.reasons import AgentFactoryError, Reason
from templates.receipt import commitment, new_salt
from templates.revocations import Revocations

DEADLINE_MARGIN_MS: Final = 20
"""What is kept of an RPC's deadline for the way back, so that the caller gets the typed failure and the receipt."""

WORKERS_TRIED_MAX: Final = 3

FAILURE_REASONS: Final[Mapping[FailureKind, Reason]] = {kind: Reason(kind.value) for kind in FailureKind}
"""The kinds of failure are reasons of the same name; `service.status` maps those to gRPC."""

log = get_logger("invoker")


class InvocationFailedError(AgentFactoryError):
    """The invocation has no output; ``record`` says what it cost all the same."""

    def __init__(self, kind: FailureKind, message: str, *, record: InvocationRecord) -> None:
        self.reason = FAILURE_REASONS[kind]
        self.kind = kind
        self.record = record
        super().__init__(
            message, metadata={"invocation": record.invocation_id, "template": f"{record.template}@{record.version}"}
        )


@dataclass(slots=True, kw_only=True)  # never changed; not frozen because that triples what making one costs
class Call:
    """One wish to run a template. ``config`` is canonical JSON; ``received`` is monotonic, in seconds.

    ``remaining_s`` is what the RPC leaves, None for "no deadline"; ``limits`` narrow the template's further; ``above``
    are the amounts of the invocation that asks for this one.
    ``on_begun`` hears, while the guest runs, of the record that its end will be written into: what can be said of an
    answer beforehand is best prepared there.
    """

    tenant: str
    caller: str
    template: ActiveTemplate
    generation: int
    input: str
    config: bytes
    config_sha256: str
    received: float
    agent_id: str = ""
    limits: SandboxLimits | None = None
    remaining_s: float | None = None
    parent_invocation_id: str = ""
    depth: int = 0
    above: Amounts | None = None
    on_log: Callable[[LogLine], None] | None = None
    record: bool = False
    on_begun: Callable[[InvocationRecord], None] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    output: str
    record: InvocationRecord


@dataclass(slots=True)
class Cost:
    """What an invocation and everything below it used; ``queued_s`` and ``guest_s`` are its own wait and run."""

    fuel: int = 0
    host_calls: int = 0
    queued_s: float = 0.0
    guest_s: float = 0.0


@dataclass(slots=True, eq=False)
class Running:
    """An invocation in flight; ``stopped`` is why it was. ``endings`` end what it left open, before the receipt."""

    call: Call
    invocation_id: str
    started_at: float
    task: "asyncio.Task[object]"
    budget: Budget
    amounts: Amounts
    record: InvocationRecord | None = None
    host_call_s: float = 0.0
    stopped: Failure | None = None
    recorder: Recorder | None = None
    endings: list[Callable[[], None]] = field(default_factory=list)


class HostCallsFactory(Protocol):
    """Makes what carries out the host calls of one invocation."""

    def __call__(self, running: Running, scope: AgentScope) -> HostCalls: ...


@dataclass(slots=True, kw_only=True)
class Counts:
    """Since the start."""

    invocations: int = 0
    failures: int = 0


class Invoker:
    """Holds the active generation; `swap` changes it in one assignment."""

    def __init__(
        self,
        *,
        pool: WorkerPool,
        host_calls: HostCallsFactory,
        recorders: RecorderFactory,
        invocations: InvocationLog,
        gate: AdmissionGate,
        callers: CallerRoom,
        quarantine: Quarantine,
        telemetry: Telemetry,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        limits: EffectiveLimits | None = None,
    ) -> None:
        """``clock`` gives seconds since the epoch."""
        self.limits = limits or EffectiveLimits()
        self._pool = pool
        self._host_calls = host_calls
        self._recorders = recorders
        self._invocations = invocations
        self.gate = gate
        self._callers = callers
        self.quarantine = quarantine
        self._telemetry = telemetry
        self._clock = clock
        self._monotonic = monotonic
        self._active: ActiveGeneration | None = None
        self._lease = LeaseClock(0.0, 0.0)
        self._running: set[Running] = set()
        self._own_digits = secrets.token_hex(7)
        self._sequence = 0
        self._last_ms = 0
        self._metrics = InvocationMetrics(telemetry)
        self._idle = asyncio.Event()
        self._idle.set()
        self.not_serving = "the node has not accepted a generation yet"
        self.draining = False
        self.counts = Counts()
        telemetry.measure(INVOCATIONS_IN_FLIGHT, lambda: len(self._running))
        pool.on_death = self._worker_died

    # What is active

    @property
    def active(self) -> ActiveGeneration | None:
        return self._active

    @property
    def in_flight(self) -> int:
        return len(self._running)

    def swap(self, active: ActiveGeneration) -> None:
        """Run ``active`` from now on. Invocations in flight finish on what they started with, unless it was revoked."""
        self._active = active
        self._lease = LeaseClock.of(active.accepted)
        self._stop_revoked(effective_revocations(active.accepted.charter, active.accepted.belief.revocations))

    def renew(self, active: ActiveGeneration) -> None:
        """Take the same generation with a newer lease."""
        self._active = active
        self._lease = LeaseClock.of(active.accepted)

    def template(self, name: str) -> tuple[ActiveGeneration, ActiveTemplate]:
        """Return the active template ``domain/name``.

        Raises:
            NotServingError, UnknownTemplateError
        """
        active = self._active
        if active is None:
            raise NotServingError(f"expected a node that serves, but {self.not_serving}")
        template = active.templates.get(name)
        if template is None or self._clock() >= template.approval_expires.timestamp():
            raise UnknownTemplateError(name, known=tuple(active.templates))
        return active, template

    def policy(self, template: ActiveTemplate) -> LeaseExpiry:
        """Return what the lease lets this template do now."""
        active = self._active
        if active is None:
            return LeaseExpiry.STOP
        if self._clock() < self._lease.expires and self._clock() < self._lease.stale:
            return LeaseExpiry.CONTINUE
        now = datetime.fromtimestamp(self._clock(), UTC)
        return self._lease.in_force(active.accepted, template.resolved.on_lease_expiry, now=now)

    # Running

    async def run(self, call: Call) -> Answer:
        """Run one invocation that a service asked for.

        Cancelling stops the guest.

        Raises:
            InvocationFailedError: it ran and has no output, or its input was refused.
            AgentFactoryError: it was not admitted.
        """
        self._require_admissible(call)
        with self._recorders.room(call) if call.record else nullcontext():
            if not call.template.resolved.grants.agents:
                return await self._run_root(call)
            if not self._callers.enter(call.tenant):
                raise ConcurrencyExhaustedError(
                    f"expected at most {self._callers.most} invocations of {call.tenant} that may invoke agents",
                    retry_s=1.0,
                )
            try:
                return await self._run_root(call)
            finally:
                self._callers.leave(call.tenant)

    async def _run_root(self, call: Call) -> Answer:
        memory_bytes = (call.limits or call.template.limits).memory_bytes
        admitted = call.received
        must_wait = not self.gate.enter(call.tenant, memory_bytes)
        if must_wait:
            await self.gate.wait(call.tenant, memory_bytes, remaining_s=call.remaining_s)
            admitted = self._monotonic()
        cost = Cost()
        try:
            if must_wait:
                self._require_still_admissible(call, waited_s=admitted - call.received)
            return await self._run(call, cost)
        finally:
            now = self._monotonic()
            self.gate.leave(
                call.tenant,
                memory_bytes,
                delay_s=max(0.0, cost.queued_s - (admitted - call.received)),
                guest_s=cost.guest_s,
                duration_s=now - admitted,
                now=now,
            )

    def _require_still_admissible(self, call: Call, *, waited_s: float) -> None:
        """Look again after a wait: much may have been decided meanwhile."""
        self._require_admissible(call)
        active = self._active
        if active is not None:
            accepted = active.accepted
            if _is_revoked(call.template, effective_revocations(accepted.charter, accepted.belief.revocations)):
                raise UnknownTemplateError(call.template.name_text, known=())
        if call.remaining_s is not None:
            call.remaining_s -= waited_s

    async def run_child(self, call: Call, budget: Budget) -> Answer:
        """Run an invocation that another one asked for, and take its cost from the caller's ``budget``.

        It is admitted with its root: if children had to wait for room, callers would wait for each other for ever.
        """
        self._require_admissible(call)
        memory_bytes = (call.limits or call.template.limits).memory_bytes
        self.gate.enter_child(call.tenant, memory_bytes)
        cost = Cost()
        try:
            return await self._run(call, cost)
        finally:
            self.gate.leave_child(call.tenant, memory_bytes)
            budget.spend(fuel=cost.fuel, host_calls=cost.host_calls)

    async def drain(self, timeout_s: float) -> int:
        """Refuse new invocations, wait for those that run, and return how many are left."""
        self.draining = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            pass
        return len(self._running)

    def stop_expired(self) -> None:
        """Stop what the lease does not let run any more; call it every second or so."""
        for running in list(self._running):
            if self.policy(running.call.template) is LeaseExpiry.STOP:
                message = "the lease of the active generation has run out, and the template may not run without it"
                self._stop(running, Failure(FailureKind.POLICY, message))

    def _require_admissible(self, call: Call) -> None:
        template = call.template
        if self.draining:
            raise DrainingError("expected a node that takes invocations, this one is being drained")
        if self.policy(template) in {LeaseExpiry.DRAIN, LeaseExpiry.STOP}:
            raise LeaseExpiredError(
                f"expected a lease that still runs for {template.ref_text}, which may not run without one"
            )
        if pause_s := self.quarantine.remaining_s(call.tenant, template.sha256, now=self._monotonic()):
            raise QuarantinedError(
                f"workers keep dying under {template.ref_text}; it is refused for a while", retry_s=pause_s
            )

    async def _run(self, call: Call, cost: Cost) -> Answer:
        """Return the answer; ``cost`` is filled in whatever comes of it."""
        template = call.template
        started_at = self._clock()
        invocation_id = self._new_id(started_at)
        data = call.input.encode()
        limits = _narrowed(call)
        self._require_input(call, data, limits, invocation_id, started_at)
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("expected to run in a task")
        budget = Budget(
            fuel=limits.fuel,
            host_calls=limits.host_calls,
            deadline=self._monotonic() + limits.wall_ms / 1000,
            depth=call.depth,
        )
        running = Running(
            call=call,
            invocation_id=invocation_id,
            started_at=started_at,
            task=task,
            budget=budget,
            amounts=Amounts(limits, call.above),
        )
        if call.record:
            running.recorder = self._recorders(running, data, limits, started_at)
        asyncio.get_running_loop().call_soon(self._begin_record, running)  # when the worker has what it needs
        self._running.add(running)
        self._idle.clear()
        with self._telemetry.span(SpanName.INVOKE) as span:
            span.set(Field.TEMPLATE, template.ref_text)
            span.set(Field.INVOCATION, invocation_id)
            interrupted: asyncio.CancelledError | None = None
            try:
                outcome = await self._in_worker(running, data, limits)
            except asyncio.CancelledError as error:
                interrupted, outcome = error, self._interrupted(running)
            finally:
                self._running.discard(running)
                for end in running.endings:
                    end()
                if not self._running:
                    self._idle.set()
            of_sandbox, outcome = outcome, checked_output(outcome, template.output_schema)
            record = self._finish(running, outcome, cost)
            if running.recorder is not None:
                await running.recorder.keep(of_sandbox, was_stopped=interrupted is not None)
            if interrupted is not None and running.stopped is None:
                raise interrupted
            if outcome.failure is not None:
                span.fail(outcome.failure.kind)
                raise InvocationFailedError(outcome.failure.kind, outcome.failure.message, record=record)
            return Answer((outcome.output or b"").decode(), record)

    async def _in_worker(self, running: Running, data: bytes, limits: SandboxLimits) -> Outcome:
        """Run in a worker of the tenant; one that was gone before it heard of the invocation is tried no longer."""
        for _ in range(WORKERS_TRIED_MAX - 1):
            with suppress(WorkerGoneError):
                return await self._in_one_worker(running, data, limits)
        return await self._in_one_worker(running, data, limits)

    async def _in_one_worker(self, running: Running, data: bytes, limits: SandboxLimits) -> Outcome:
        call, template = running.call, running.call.template
        scope = AgentScope(tenant=call.tenant, template=template.name, agent_id=call.agent_id)
        pooled = self._pool.ready(call.tenant, template.module_sha256)
        if pooled is None:
            pooled = await self._pool.obtain(call.tenant, template.module_sha256)
        with self._telemetry.reported_span(SpanName.SANDBOX) as span:
            handed_over = self._monotonic()
            request = InvocationRequest(
                code_id=template.module_sha256,
                abi=template.abi,
                source=template.source,
                input=data,
                config=call.config,
                limits=limits,
                granted=template.granted,
                invocation_id=running.invocation_id,
                trace_context=current_trace_context(),
                stream_logs=call.on_log is not None,
                order=None if running.recorder is None else running.recorder.order,
                meter=running.budget.meter,
                on_late=None if running.recorder is None else running.recorder.ended_late,
            )
            host = self._host_calls(running, scope)
            if running.recorder is not None:
                host = running.recorder.listening(host)
            outcome = await self._pool.invoke(pooled, template.sha256, request, host, call.on_log)
            if self._telemetry.tracing:
                describe_sandbox(
                    span, outcome, elapsed_s=self._monotonic() - handed_over, host_call_s=running.host_call_s
                )
            return outcome

    def _require_input(
        self, call: Call, data: bytes, limits: SandboxLimits, invocation_id: str, started_at: float
    ) -> None:
        """Refuse an input before anything runs; the refusal is recorded like any other outcome."""
        problem = ""
        if len(data) > limits.input_bytes:
            problem = f"expected an input of at most {limits.input_bytes} bytes, got {len(data)}"
        elif call.template.input_schema is not None:
            problem = misfit(call.template.input_schema, call.input, "input")
        if not problem:
            return
        record = _record(call, invocation_id, started_at)
        record.outcome, record.message = str(FailureKind.INPUT), problem
        record.usage = UsageRecord(input_bytes=len(data))
        self._keep(record)
        raise InvocationFailedError(FailureKind.INPUT, problem, record=record)

    def _interrupted(self, running: Running) -> Outcome:
        failure = running.stopped
        if failure is None:
            failure = Failure(FailureKind.CANCELLED, "the caller cancelled, or its deadline came")
        else:
            running.task.uncancel()
        known = Usage(fuel=running.budget.meter.used, input_bytes=len(running.call.input.encode()))
        return Outcome(output=None, failure=failure, usage=known)

    def _begin_record(self, running: Running) -> InvocationRecord:
        """Return the record of an invocation, made if need be."""
        record = running.record
        if record is None:
            call = running.call
            record = running.record = _record(call, running.invocation_id, running.started_at)
            if call.on_begun is not None:
                call.on_begun(record)
        return record

    def _finish(self, running: Running, outcome: Outcome, cost: Cost) -> InvocationRecord:
        record, budget, used = self._begin_record(running), running.budget, outcome.usage
        wall_us = int((self._monotonic() - running.call.received) * 1e6)
        record.usage = UsageRecord(
            fuel=used.fuel,
            wall_us=wall_us,
            guest_us=used.guest_us,
            host_calls=used.host_calls,
            wasi_calls=used.wasi_calls,
            input_bytes=used.input_bytes,
            output_bytes=used.output_bytes,
            log_bytes=used.log_bytes,
            child_invocations=budget.children,
        )
        record.usage.sent_bytes, record.usage.received_bytes, record.usage.tokens, _ = running.amounts.used
        record.usage.grants = running.amounts.grants
        if outcome.output is not None:
            record.output_hmac_sha256 = commitment(record.salt, outcome.output)
        cost.fuel = used.fuel + budget.spent_fuel
        cost.host_calls = used.host_calls + budget.spent_host_calls
        cost.guest_s = used.guest_us / 1e6
        cost.queued_s = max(0.0, (wall_us - used.guest_us) / 1e6 - running.host_call_s)
        failure = outcome.failure
        if failure is None:
            record.outcome = OK
        else:
            record.outcome, record.message = str(failure.kind), failure.message
        if outcome.logs:
            record.logs = tuple(LogRecord(line.level, line.message, line.at_us) for line in outcome.logs)
        record.logs_cut = outcome.logs_cut
        self._keep(record)
        return record

    def _keep(self, record: InvocationRecord) -> None:
        self._invocations.record(record)
        self.counts.invocations += 1
        self.counts.failures += record.outcome != OK
        self._metrics.add(record)

    def _stop_revoked(self, revocations: Revocations) -> None:
        for running in list(self._running):
            template = running.call.template
            if _is_revoked(template, revocations):
                self._stop(running, Failure(FailureKind.REVOKED, f"{template.ref_text} was revoked while it ran"))

    def _stop(self, running: Running, why: Failure) -> None:
        if running.stopped is None:
            running.stopped = why
            running.task.cancel()

    def _worker_died(self, tenant: str, templates: tuple[str, ...]) -> None:
        for digest in self.quarantine.worker_died(tenant, templates, now=self._monotonic()):
            log.warning("template_quarantined", **{Field.TENANT: tenant, Field.DIGEST: digest})

    def _new_id(self, now: float) -> str:
        """Return an id that sorts by time: milliseconds, a count within them, this process's own randomness.

        It is a name, not a secret: who may see an invocation is decided by tenant.
        """
        ms = int(now * 1000)
        if ms > self._last_ms:
            self._last_ms, self._sequence = ms, 0
        self._sequence += 1
        return f"{self._last_ms:012x}{self._sequence:06x}{self._own_digits}"


def _is_revoked(template: ActiveTemplate, revocations: Revocations) -> bool:
    return template.sha256 in revocations.templates or bool(
        {template.code_sha256, template.image_sha256} & revocations.modules
    )


def _record(call: Call, invocation_id: str, started_at: float) -> InvocationRecord:
    template, salt = call.template, new_salt()
    return InvocationRecord(
        invocation_id=invocation_id,
        tenant=call.tenant,
        caller=call.caller,
        agent_id=call.agent_id,
        template=template.name_text,
        version=template.version_text,
        generation=call.generation,
        template_sha256=template.sha256,
        code_sha256=template.code_sha256,
        image_sha256=template.image_sha256,
        config_sha256=call.config_sha256,
        started_at=datetime.fromtimestamp(started_at, UTC),
        parent_invocation_id=call.parent_invocation_id,
        input_hmac_sha256=commitment(salt, call.input.encode()),
        salt=salt,
    )


def _narrowed(call: Call) -> SandboxLimits:
    limits = call.template.limits if call.limits is None else call.limits
    if call.remaining_s is None:
        return limits
    wall_ms = max(1, int(call.remaining_s * 1000) - DEADLINE_MARGIN_MS)
    return limits if wall_ms >= limits.wall_ms else replace(limits, wall_ms=wall_ms)


def config_digest(config: bytes) -> str:
    return hashlib.sha256(config).hexdigest()
