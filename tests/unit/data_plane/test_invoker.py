"""The way of an invocation with fake workers and a clock of its own: admission, leases, revocation, drain, costs."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from data_plane.activation.generation import ActiveGeneration, ActiveTemplate, make_active
from data_plane.admission.callers import CallerRoom
from data_plane.admission.concurrency import ConcurrencyLimit, ConcurrencySettings
from data_plane.admission.quarantine import Quarantine, QuarantineSettings
from data_plane.admission.quotas import Quota, TenantQuotas
from data_plane.admission_gate import AdmissionGate
from data_plane.agents.access import RecordingAccess
from data_plane.agents.agent import AgentScope
from data_plane.agents.refusals import (
    ConcurrencyExhaustedError,
    DrainingError,
    LeaseExpiredError,
    NotServingError,
    QuarantinedError,
    UnknownTemplateError,
)
from data_plane.host_calls import Broker
from data_plane.invoker import Call, InvocationFailedError, Invoker, Running
from data_plane.recorder import Recorders
from data_plane.sealed_files import StoreFailedError
from data_plane.sqlite_writer import DatabaseFailedError
from data_plane.worker_pool import PoolSettings, WorkerPool
from sandbox.outcome import Failure, FailureKind, LogLine, Outcome, Usage
from sandbox.request import CompiledCode, InvocationRequest
from sandbox.supervisor import HostCalls
from service.tasks import TaskSupervisor
from service.telemetry import Telemetry
from templates.acceptance import AcceptedTemplate, ClearedTemplate
from templates.document import LeaseExpiry
from templates.grants import Grants, HttpGrant, KvGrant
from templates.names import TemplatePattern
from templates.revocations import Revocations
from templates.schemas import compile_schema
from templates.trusted_set import Accepted
from tests.egress_world import ALLOWED, http_calls
from tests.llm_world import no_models
from tests.trust_world import HARDWARE_REF, NOW, believe, pinned, ready_world
from tests.unit.data_plane.fake_worker import Behaviour, FakeWorker, compiled, echo, until
from tests.unit.data_plane.file_world import no_exports
from tests.unit.data_plane.memory_store import MemoryAgents, MemoryInvocations

NAME = "docs/hardware"


def accepted_generation() -> Accepted:
    world = ready_world()
    return believe(world.publish().bundle(), pinned(world))


def template_of(accepted: Accepted, **changes: object) -> ActiveTemplate:
    own: AcceptedTemplate = accepted.templates[HARDWARE_REF.template_name]
    made = make_active(ClearedTemplate(accepted=own), source=None)
    resolved = {key: changes.pop(key) for key in ("grants", "callers", "on_lease_expiry") if key in changes}
    return replace(made, resolved=replace(made.resolved, **resolved), **changes)  # type: ignore[arg-type]


class World:
    def __init__(self, tasks: TaskSupervisor) -> None:
        self.now = NOW.timestamp() + 1
        self.worker = FakeWorker()
        self.records = MemoryInvocations()
        self.recordings: dict[tuple[str, str], bytes] = {}
        self.recording_fails = False
        self.kv = MemoryAgents()
        self.files = no_exports()
        self.accepted = accepted_generation()
        self.limit = ConcurrencyLimit(
            ConcurrencySettings(limit_min=2, limit_first=2, limit_max=2), process_time=lambda: 0.0
        )
        self.gate = AdmissionGate(
            limit=self.limit,
            quotas=TenantQuotas(Quota(in_flight=5, workers=1), {"tiny": Quota(in_flight=1, workers=1)}),
            queue_max=1,
            wait_s_max=0.05,
        )
        self.callers = CallerRoom(slots=100, depth_max=2)
        self.quarantine = Quarantine(QuarantineSettings(crashes=1.0))

        async def start() -> FakeWorker:
            if self.worker.exited.is_set():
                self.worker = FakeWorker()
            return self.worker

        async def code(module: str) -> CompiledCode:
            return compiled(module)

        self.pool = WorkerPool(
            start=start,
            code=code,
            settings=PoolSettings(spares=0),
            tasks=tasks,
            telemetry=Telemetry(),
            monotonic=lambda: self.now,
        )

        def host_calls(running: Running, scope: AgentScope) -> Broker:
            return Broker(
                running,
                scope,
                kv=self.kv,
                http=http_calls(),
                llm=no_models(),
                files=self.files,
                invoker=self.invoker,
                depth_max=2,
                telemetry=Telemetry(),
                monotonic=lambda: self.now,
            )

        self.recorders = Recorders(
            node_id="n1",
            engine="e" * 64,
            access=RecordingAccess({"acme": ["docs/*"]}),
            store=self,
            bytes_max=100_000,
            telemetry=Telemetry(),
            last_word_s=0.2,
            entropy=lambda count: b"r" * count,
        )
        self.invoker = Invoker(
            pool=self.pool,
            host_calls=host_calls,
            recorders=self.recorders,
            invocations=self.records,
            gate=self.gate,
            callers=self.callers,
            quarantine=self.quarantine,
            telemetry=Telemetry(),
            clock=lambda: self.now,
            monotonic=lambda: self.now,
        )

    def activate(self, *templates: ActiveTemplate, accepted: Accepted | None = None) -> ActiveTemplate:
        chosen = templates or (template_of(self.accepted),)
        active = ActiveGeneration(
            accepted=accepted or self.accepted,
            templates={each.name_text: each for each in chosen},
            activated_at=datetime.fromtimestamp(self.now, UTC),
            took_s=0.0,
        )
        self.invoker.swap(active)
        return chosen[0]

    def behave(self, behaviour: Behaviour) -> None:
        self.worker.behaviour = behaviour

    def call(self, template: ActiveTemplate, text: str = "in", **changes: object) -> Call:
        call = Call(
            tenant="acme",
            caller="spiffe://td/tenant/acme/service/web",
            template=template,
            generation=7,
            input=text,
            config=template.default_config,
            config_sha256=template.default_config_sha256,
            received=self.now,
        )
        for name, value in changes.items():
            setattr(call, name, value)
        return call

    async def keep(self, tenant: str, invocation_id: str, content: bytes) -> None:
        """Be the store of recordings."""
        if self.recording_fails:
            raise StoreFailedError("expected to write, got a full disk")
        self.recordings[tenant, invocation_id] = content

    def outcomes(self) -> list[str]:
        return [record.outcome for record in self.records.records.values()]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with TaskSupervisor() as tasks:
        yield World(tasks)


def ends_with(kind: FailureKind) -> Behaviour:
    async def behave(request: InvocationRequest, host: HostCalls) -> Outcome:
        return Outcome(None, Failure(kind, "no"), Usage(fuel=3), (LogLine("info", "hello", 1),), logs_cut=True)

    return behave


async def hangs(request: InvocationRequest, host: HostCalls) -> Outcome:
    await asyncio.Event().wait()
    return await echo(request, host)


async def test_an_answer_is_recorded_with_its_digests_and_cost(world: World) -> None:
    template = world.activate()
    answer = await world.invoker.run(world.call(template, "héllo"))
    assert answer.output == "héllo"
    (record,) = world.records.records.values()
    assert record == answer.record
    assert (record.template, record.version, record.outcome) == (NAME, "1.0.0", "OK")
    assert record.template_sha256 == template.sha256
    assert record.usage.fuel == 10
    assert world.invoker.counts.invocations == 1
    assert world.limit.in_flight == world.invoker.in_flight == 0


@pytest.mark.parametrize("kind", list(FailureKind))
async def test_every_failure_kind_leaves_as_the_reason_of_its_name(world: World, kind: FailureKind) -> None:
    template = world.activate()
    world.behave(ends_with(kind))
    with pytest.raises(InvocationFailedError) as failed:
        await world.invoker.run(world.call(template))
    assert str(failed.value.reason) == str(kind) == failed.value.record.outcome
    assert failed.value.record.logs_cut
    assert failed.value.record.logs[0].message == "hello"
    assert world.invoker.counts.failures == 1
    assert world.limit.in_flight == 0


async def test_ids_sort_by_time_even_when_the_clock_goes_back(world: World) -> None:
    template = world.activate()
    ids = []
    for step in (0.0, 0.0, 5.0, -9.0, 0.001):
        world.now += step
        ids.append((await world.invoker.run(world.call(template))).record.invocation_id)
    assert ids == sorted(ids)
    assert len(set(ids)) == 5


async def test_past_the_limit_callers_are_sent_away(world: World) -> None:
    template = world.activate()
    world.behave(hangs)
    running = [asyncio.ensure_future(world.invoker.run(world.call(template))) for _ in range(2)]
    await until(lambda: world.invoker.in_flight == 2)
    assert world.gate.queued == 0
    with pytest.raises(ConcurrencyExhaustedError) as refused:
        await world.invoker.run(world.call(template))
    assert refused.value.retry_s > 0
    for each in running:
        each.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    assert world.outcomes() == ["CANCELLED", "CANCELLED"]
    assert world.limit.in_flight == 0


async def test_input_is_refused_before_a_worker_hears_of_it(world: World) -> None:
    schema = compile_schema({"type": "object"})
    template = world.activate(template_of(world.accepted, input_schema=schema))
    limits = replace(template.limits, input_bytes=10)
    for text in ("[]", "no json", '{"too": "long for it"}'):
        with pytest.raises(InvocationFailedError) as failed:
            await world.invoker.run(world.call(template, text, limits=limits))
        assert failed.value.kind is FailureKind.INPUT
    assert world.worker.requests == []
    assert world.outcomes() == ["INPUT"] * 3


@pytest.mark.parametrize("output", [b"\xff", b"{}", b"nope"])
async def test_output_that_does_not_fit_is_a_failure(world: World, output: bytes) -> None:
    template = world.activate(template_of(world.accepted, output_schema=compile_schema({"type": "array"})))

    async def behave(request: InvocationRequest, host: HostCalls) -> Outcome:
        return Outcome(output, None, Usage())

    world.behave(behave)
    with pytest.raises(InvocationFailedError) as failed:
        await world.invoker.run(world.call(template))
    assert failed.value.kind is FailureKind.OUTPUT


@pytest.mark.parametrize(("remaining_s", "wall_ms"), [(None, 10_000), (60.0, 10_000), (2.0, 1_980), (0.001, 1)])
async def test_the_rpcs_deadline_narrows_wall_time(world: World, remaining_s: float | None, wall_ms: int) -> None:
    template = world.activate()
    await world.invoker.run(world.call(template, remaining_s=remaining_s))
    assert world.worker.requests[0].limits.wall_ms == wall_ms


async def test_a_node_without_a_generation_says_why_it_does_not_serve(world: World) -> None:
    world.invoker.not_serving = "its store is damaged"
    with pytest.raises(NotServingError, match="its store is damaged"):
        world.invoker.template(NAME)
    world.activate()
    with pytest.raises(UnknownTemplateError):
        world.invoker.template("docs/hardwear")
    assert world.invoker.template(NAME)[1].name_text == NAME


async def test_an_approval_that_runs_out_takes_its_template_away(world: World) -> None:
    template = world.activate()
    world.now = template.approval_expires.timestamp()
    with pytest.raises(UnknownTemplateError):
        world.invoker.template(NAME)


@pytest.mark.parametrize(
    ("policy", "expired", "stale"),
    [
        (LeaseExpiry.CONTINUE, LeaseExpiry.CONTINUE, LeaseExpiry.STOP),
        (LeaseExpiry.NO_NEW_AGENTS, LeaseExpiry.NO_NEW_AGENTS, LeaseExpiry.STOP),
        (LeaseExpiry.DRAIN, LeaseExpiry.DRAIN, LeaseExpiry.STOP),
        (LeaseExpiry.STOP, LeaseExpiry.STOP, LeaseExpiry.STOP),
    ],
)
async def test_what_a_lease_that_runs_out_does(
    world: World, policy: LeaseExpiry, expired: LeaseExpiry, stale: LeaseExpiry
) -> None:
    template = world.activate(template_of(world.accepted, on_lease_expiry=policy))
    lease = world.accepted.lease
    assert world.invoker.policy(template) is LeaseExpiry.CONTINUE
    world.now = lease.expires.timestamp() + 1
    assert world.invoker.policy(template) is expired
    if expired in {LeaseExpiry.DRAIN, LeaseExpiry.STOP}:
        with pytest.raises(LeaseExpiredError):
            await world.invoker.run(world.call(template))
    else:
        await world.invoker.run(world.call(template))
    world.now = (lease.signed_at + timedelta(seconds=world.accepted.charter.staleness_s_max)).timestamp()
    assert world.invoker.policy(template) is stale
    with pytest.raises(LeaseExpiredError):
        await world.invoker.run(world.call(template))


async def test_a_lease_that_runs_out_stops_what_may_not_run_without_it(world: World) -> None:
    template = world.activate(template_of(world.accepted, on_lease_expiry=LeaseExpiry.STOP))
    world.behave(hangs)
    running = asyncio.ensure_future(world.invoker.run(world.call(template)))
    await until(lambda: world.invoker.in_flight == 1)
    world.invoker.stop_expired()
    await asyncio.sleep(0)
    assert not running.done()
    world.now = world.accepted.lease.expires.timestamp() + 1
    world.invoker.stop_expired()
    with pytest.raises(InvocationFailedError) as failed:
        await running
    assert failed.value.kind is FailureKind.POLICY


async def test_a_renewed_lease_lets_everything_run_on(world: World) -> None:
    template = world.activate(template_of(world.accepted, on_lease_expiry=LeaseExpiry.STOP))
    world.now = world.accepted.lease.expires.timestamp() + 1
    later = world.accepted.lease.expires + timedelta(hours=1)
    renewed = replace(
        world.accepted,
        lease=replace(world.accepted.lease, expires=later),
        expires={**world.accepted.expires, "timestamp": later},
    )
    assert world.invoker.active is not None
    world.invoker.renew(replace(world.invoker.active, accepted=renewed))
    assert (await world.invoker.run(world.call(template))).output == "in"


async def test_running_invocations_finish_on_their_version_and_revoked_ones_are_stopped(world: World) -> None:
    template = world.activate()
    release = asyncio.Event()

    async def waits(request: InvocationRequest, host: HostCalls) -> Outcome:
        await release.wait()
        return await echo(request, host)

    world.behave(waits)
    old = asyncio.ensure_future(world.invoker.run(world.call(template)))
    await until(lambda: world.invoker.in_flight == 1)
    newer = world.activate(replace(template, sha256="b" * 64, version_text="1.1.0", ref_text=f"{NAME}@1.1.0"))
    new = asyncio.ensure_future(world.invoker.run(world.call(newer)))
    await until(lambda: world.invoker.in_flight == 2)
    belief = replace(world.accepted.belief, revocations=Revocations(templates=frozenset({newer.sha256})))
    world.activate(template, accepted=replace(world.accepted, belief=belief))
    with pytest.raises(InvocationFailedError) as failed:
        await new
    assert failed.value.kind is FailureKind.REVOKED
    release.set()
    answer = await old
    assert answer.record.version == "1.0.0"
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_a_template_under_which_workers_die_is_quarantined_for_its_tenant(world: World) -> None:
    template = world.activate()
    world.behave(hangs)
    running = asyncio.ensure_future(world.invoker.run(world.call(template)))
    await until(lambda: world.worker.in_flight == 1)
    world.worker.die()
    with pytest.raises(InvocationFailedError) as failed:
        await running
    assert failed.value.kind is FailureKind.CRASH
    await until(lambda: world.quarantine.remaining_s("acme", template.sha256, now=world.now))
    with pytest.raises(QuarantinedError) as refused:
        await world.invoker.run(world.call(template))
    assert refused.value.retry_s > 0
    assert (await world.invoker.run(world.call(template, tenant="rival"))).output == "in"


async def test_a_worker_that_went_before_it_heard_of_the_invocation_is_replaced(world: World) -> None:
    template = world.activate()
    await world.invoker.run(world.call(template))
    gone = world.worker
    gone.is_silent = True
    world.worker = FakeWorker()
    assert (await world.invoker.run(world.call(template, "again"))).output == "again"
    assert len(gone.requests) == 1
    assert world.outcomes() == ["OK", "OK"]


async def test_drain_refuses_new_ones_and_waits_for_those_that_run(world: World) -> None:
    template = world.activate()
    release = asyncio.Event()

    async def waits(request: InvocationRequest, host: HostCalls) -> Outcome:
        await release.wait()
        return await echo(request, host)

    world.behave(waits)
    running = asyncio.ensure_future(world.invoker.run(world.call(template)))
    await until(lambda: world.invoker.in_flight == 1)
    assert await world.invoker.drain(0.01) == 1
    with pytest.raises(DrainingError):
        await world.invoker.run(world.call(template))
    release.set()
    assert await world.invoker.drain(5.0) == 0
    assert (await running).output == "in"


async def test_log_lines_are_handed_on(world: World) -> None:
    template = world.activate()
    world.behave(ends_with(FailureKind.TRAP))
    lines: list[LogLine] = []
    with pytest.raises(InvocationFailedError):
        await world.invoker.run(world.call(template, on_log=lines.append))
    assert [line.message for line in lines] == ["hello"]


# Host calls


def asks(*calls: tuple[str, str, object]) -> tuple[Behaviour, list[dict[str, object]]]:
    """A guest that makes these host calls and keeps the answers."""
    answers: list[dict[str, object]] = []

    async def behave(request: InvocationRequest, host: HostCalls) -> Outcome:
        if request.input != b"in":
            return await echo(request, host)
        for interface, function, argument in calls:
            data = argument if isinstance(argument, bytes) else json.dumps(argument).encode()
            answers.append(json.loads(await host.call(interface, function, data)))
        return Outcome(b"done", None, Usage(fuel=100, host_calls=len(calls)))

    return behave, answers


def granted(world: World, grants: Grants, *, callers: str = "*/*") -> ActiveTemplate:
    return template_of(world.accepted, grants=grants, callers=(TemplatePattern.parse(callers),))


async def test_host_calls_that_were_not_granted_are_denied(world: World) -> None:
    template = world.activate(granted(world, Grants()))
    behave, answers = asks(
        ("kv", "get", {"key": "k"}),
        ("agents", "invoke", {"template": NAME, "input": "x"}),
        ("http", "get", {}),
        ("", "", b"\xff"),
    )
    world.behave(behave)
    await world.invoker.run(world.call(template))
    assert [each["error"]["kind"] for each in answers] == ["denied"] * 4  # type: ignore[index]


async def test_state_is_scoped_by_tenant_template_and_agent(world: World) -> None:
    template = world.activate(granted(world, Grants(kv=KvGrant(namespace="n", bytes_max=100))))
    behave, answers = asks(
        ("kv", "put", {"key": "k", "value": "v"}),
        ("kv", "get", {"key": "k"}),
        ("kv", "list", {}),
        ("kv", "delete", {"key": "k", "expected": 1}),
        ("kv", "get", {"key": "k"}),
        ("kv", "drop", {}),
    )
    world.behave(behave)
    await world.invoker.run(world.call(template))
    assert answers[:5] == [
        {"ok": {"version": 1}},
        {"ok": {"value": "v", "version": 1}},
        {"ok": {"keys": ["k"], "cursor": None}},
        {"ok": None},
        {"ok": None},
    ]
    assert answers[5]["error"]["kind"] == "invalid"  # type: ignore[index]


async def test_an_answer_that_is_too_long_for_the_worker_is_an_error_to_the_guest(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_plane.host_calls.ANSWER_BYTES_MAX", 40)
    template = world.activate(granted(world, Grants(kv=KvGrant(namespace="n", bytes_max=100))))
    behave, answers = asks(("kv", "put", {"key": "k", "value": "v" * 50}), ("kv", "get", {"key": "k"}))
    world.behave(behave)
    await world.invoker.run(world.call(template))
    assert answers[1]["error"]["kind"] == "failed"  # type: ignore[index]


async def test_a_child_is_admitted_with_its_root_and_recorded_below_it(world: World) -> None:
    grants = Grants(agents=(TemplatePattern.parse("docs/*"),))
    template = world.activate(granted(world, grants))
    behave, answers = asks(*[("agents", "invoke", {"template": NAME, "input": "child"})] * 3)
    world.behave(behave)
    world.limit.limit = 1
    answer = await world.invoker.run(world.call(template))
    assert answers == [{"ok": {"output": "child"}}] * 3
    assert answer.record.usage.child_invocations == 3
    children = [each for each in world.records.records.values() if each.parent_invocation_id]
    assert {each.parent_invocation_id for each in children} == {answer.record.invocation_id}
    assert all(each.caller == answer.record.caller for each in children)
    child_limits = [each.limits for each in world.worker.requests if each.input == b"child"]
    fuel = template.limits.fuel
    assert [each.fuel for each in child_limits] == [fuel, fuel - 10, fuel - 20]


async def test_agents_that_invoke_agents_do_not_multiply_the_requests_of_the_first(world: World) -> None:
    http = HttpGrant(binding="api", origin="https://api.example", methods=("GET",), path_prefixes=("/",))
    template = world.activate(granted(world, Grants(agents=(TemplatePattern.parse("*/*"),), http=(http,))))
    fetch = {"binding": "api", "request": '{"method": "GET", "path": "/"}'}
    kinds: list[str] = []

    async def behave(request: InvocationRequest, host: HostCalls) -> Outcome:
        for _ in range(3):
            answer = json.loads(await host.call("http", "fetch", json.dumps(fetch).encode()))
            kinds.append(answer["error"]["kind"])
        if request.input == b"in":
            await host.call("agents", "invoke", json.dumps({"template": NAME, "input": "child"}).encode())
        return Outcome(b"done", None, Usage())

    world.behave(behave)
    await world.invoker.run(world.call(template))
    assert ALLOWED.requests_max == 5
    assert kinds == ["failed"] * 5 + ["budget"]  # there is no such name
    kinds.clear()
    await world.invoker.run(world.call(template))
    assert kinds[0] == "failed"


async def test_a_childs_failure_is_an_answer_and_a_callee_that_is_not_active_is_not_found(world: World) -> None:
    grants = Grants(agents=(TemplatePattern.parse("*/*"),))
    template = world.activate(granted(world, grants))
    behave, answers = asks(
        ("agents", "invoke", {"template": "docs/none", "input": ""}),
        ("agents", "invoke", {"template": f"{NAME}@9.9.9", "input": ""}),
        ("agents", "invoke", {"template": NAME, "input": "x" * (template.limits.input_bytes + 1)}),
    )
    world.behave(behave)
    await world.invoker.run(world.call(template))
    assert [each["error"]["kind"] for each in answers] == ["not_found", "not_found", "failed"]  # type: ignore[index]


async def test_a_store_that_fails_is_an_error_to_the_guest_without_its_text(world: World) -> None:
    class Broken(MemoryAgents):
        async def kv_get(self, *_: object) -> None:
            raise DatabaseFailedError("disk at /secret/place is full")

    world.kv = Broken()
    template = world.activate(granted(world, Grants(kv=KvGrant(namespace="n", bytes_max=100))))
    behave, answers = asks(("kv", "get", {"key": "k"}))
    world.behave(behave)
    await world.invoker.run(world.call(template))
    assert answers == [{"error": {"kind": "failed", "message": "STORE_FAILED"}}]
