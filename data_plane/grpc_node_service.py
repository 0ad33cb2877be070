"""NodeService: what operators ask of one node."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum, unique
from typing import Any, Final, cast

import grpc.aio
from agentfactory.node.v1 import node_pb2 as pb
from agentfactory.node.v1 import node_pb2_grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from data_plane.activation.generation import ActiveGeneration
from data_plane.admission.quotas import Use
from data_plane.authorisation import NODE_SERVICE
from data_plane.invoker import Invoker
from data_plane.node_state import NodeState, Snapshot, State
from data_plane.worker_pool import REHEARSAL, SPARE, PooledWorker, WorkerPool
from service.access.authority import Authority
from service.access.roles import ANY
from service.logs import get_logger
from service.peer import peer_of
from service.telemetry import Field

DRAIN_S: Final = 30.0
"""How long Drain waits when its caller sets no deadline."""
_MARGIN_S: Final = 0.1

log = get_logger("operators")


@unique
class Event(StrEnum):
    """What this module logs."""

    QUARANTINE_RELEASED = "quarantine_released"


Context = grpc.aio.ServicerContext[Any, Any]

_STATES: Final = {
    State.WAITING: pb.NODE_STATE_WAITING,
    State.SERVING: pb.NODE_STATE_SERVING,
    State.DRAINING: pb.NODE_STATE_DRAINING,
    State.DAMAGED: pb.NODE_STATE_DAMAGED,
    State.UNISOLATED: pb.NODE_STATE_UNISOLATED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What does not change while the process runs."""

    node_id: str
    version: str
    wasmtime_version: str
    started_at: datetime


class GrpcNodeService(node_pb2_grpc.NodeServiceServicer):
    """The servicer; see the proto for what each method promises."""

    def __init__(
        self,
        *,
        facts: NodeFacts,
        state: NodeState,
        invoker: Invoker,
        pool: WorkerPool,
        agents: Callable[[], Awaitable[int]],
        connected: Callable[[], bool],
        clock: Callable[[], datetime],
        authority: Authority,
        monotonic: Callable[[], float],
    ) -> None:
        self._facts = facts
        self._state = state
        self._invoker = invoker
        self._pool = pool
        self._agents = agents
        self._connected = connected
        self._clock = clock
        self._authority = authority
        self._monotonic = monotonic

    async def GetNodeStatus(self, request: pb.GetNodeStatusRequest, context: Context) -> pb.NodeStatus:  # noqa: ARG002, N802
        look = self._state.look()
        status = pb.NodeStatus(
            node=self._facts.node_id,
            state=_STATES[look.state],
            state_reason=look.reason,
            control_plane_connected=self._connected(),
            workers=[self._worker(each) for each in self._pool.workers()],
            in_flight=self._invoker.in_flight,
            agents=await self._agents(),
            wasmtime_version=self._facts.wasmtime_version,
            version=self._facts.version,
            start_time=_timestamp(self._facts.started_at),
            warnings=look.warnings,
            lease_expired=look.lease_expired,
            quarantined=self._quarantined(look.active),
            concurrency_limit=self._invoker.gate.limit.limit,
            queued=self._invoker.gate.queued,
            tenants=self._tenants(),
            audit_checkpoint=self._state.witness.held,
            isolation=pb.Isolation(
                level=self._state.isolation.level or "",
                demanded=self._state.isolation.demanded,
                missing=self._state.isolation.missing,
            ),
        )
        _fill_generation(status, look)
        if look.last_refusal is not None:
            refusal = look.last_refusal.refusal
            status.last_refusal.CopyFrom(
                pb.Refusal(
                    generation=refusal.generation,
                    phase=str(refusal.phase),
                    template=refusal.template,
                    reason=str(refusal.reason),
                    message=refusal.message,
                    refuse_time=_timestamp(look.last_refusal.at),
                    retryable=refusal.retryable,
                )
            )
        return status

    async def Drain(self, request: pb.DrainRequest, context: Context) -> pb.DrainResponse:  # noqa: ARG002, N802
        self._authority.require_everywhere(peer_of(context), f"/{NODE_SERVICE}/Drain")
        remaining_s = cast("float | None", context.time_remaining())
        wait_s = DRAIN_S if remaining_s is None else max(0.0, remaining_s - _MARGIN_S)
        return pb.DrainResponse(unfinished=await self._invoker.drain(wait_s))

    async def ReleaseQuarantine(  # noqa: N802
        self, request: pb.ReleaseQuarantineRequest, context: Context
    ) -> pb.ReleaseQuarantineResponse:
        active = self._state.look().active
        operator = peer_of(context)
        # Without a tenant it releases those of all: that takes somebody whose scope is all of them.
        self._authority.require(operator, f"/{NODE_SERVICE}/ReleaseQuarantine", tenant=request.tenant or ANY)
        templates: list[str] | None = None
        if request.template:
            named = [] if active is None else active.templates.values()
            templates = [
                request.template,
                *(each.sha256 for each in named if request.template in {each.name_text, each.ref_text}),
            ]
        released = self._invoker.quarantine.release(tenant=request.tenant, templates=templates, now=self._monotonic())
        log.warning(Event.QUARANTINE_RELEASED, **{Field.PEER: operator.uri, Field.TENANT: request.tenant})
        return pb.ReleaseQuarantineResponse(released=released)

    def _quarantined(self, active: ActiveGeneration | None) -> list[pb.Quarantined]:
        names = {} if active is None else {each.sha256: each.ref_text for each in active.templates.values()}
        return [
            pb.Quarantined(
                tenant=each.tenant,
                template_sha256=each.template,
                template=names.get(each.template, ""),
                remaining=_duration(each.remaining_s),
                times=each.times,
            )
            for each in self._invoker.quarantine.held(now=self._monotonic())
        ]

    def _tenants(self) -> list[pb.TenantUse]:
        gate = self._invoker.gate
        used, queued = gate.quotas.used(), gate.queued_of()
        workers = Counter(each.tenant for each in self._pool.workers())
        found = []
        for tenant in sorted((used.keys() | workers.keys()) - {SPARE, REHEARSAL}):
            quota, use = gate.quotas.of(tenant), used.get(tenant, Use())
            found.append(
                pb.TenantUse(
                    tenant=tenant,
                    in_flight=use.in_flight - queued.get(tenant, 0),
                    queued=queued.get(tenant, 0),
                    workers=workers[tenant],
                    memory_bytes=use.memory_bytes,
                    in_flight_max=quota.in_flight,
                    workers_max=quota.workers,
                    memory_bytes_max=quota.memory_bytes or 0,
                )
            )
        return found

    def _worker(self, pooled: PooledWorker) -> pb.WorkerStatus:
        age = timedelta(seconds=self._monotonic() - pooled.started)
        return pb.WorkerStatus(
            pid=pooled.worker.pid,
            tenant=pooled.tenant,
            isolation=pooled.worker.level,
            in_flight=pooled.worker.in_flight,
            start_time=_timestamp(self._clock() - age),
            invocations=pooled.invocations,
        )


def _fill_generation(status: pb.NodeStatus, look: Snapshot) -> None:
    active = look.active
    if active is None:
        return
    accepted = active.accepted
    status.generation = active.number
    status.environment = accepted.environment
    status.activate_time.CopyFrom(_timestamp(active.activated_at))
    status.lease_expire_time.CopyFrom(_timestamp(accepted.lease.expires))
    status.activation_took.CopyFrom(_duration(active.took_s))
    for template in sorted(active.templates.values(), key=lambda each: each.name_text):
        status.templates.add(
            template=template.ref_text,
            sha256=template.sha256,
            approvers=sorted(template.approvers),
            approval_expire_time=_timestamp(template.approval_expires),
        )
    versions = {} if accepted.belief.mark is None else accepted.belief.mark.roles
    for role, expires in sorted(accepted.expires.items()):
        version = versions[role].version if role in versions else accepted.root_version if role == "root" else 0
        status.expiries.add(role=role, version=version, expire_time=_timestamp(expires))


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration


def _timestamp(moment: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp
