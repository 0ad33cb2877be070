"""AccessService: who the caller is here, secure mode, blocked addresses. Both planes serve it."""

# ruff: noqa: N802, ARG002 -- names and signatures are those of the service

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum, unique
from typing import Any

import grpc.aio
from agentfactory.admin.v1 import access_pb2 as pb
from agentfactory.admin.v1 import access_pb2_grpc as rpc
from google.protobuf.timestamp_pb2 import Timestamp

from service.access.authority import Authority
from service.access.backoff import FailureBackoff
from service.access.gate import Gate
from service.access.protection import Block, SecureMode, parse_network, shortened
from service.logs import get_logger
from service.peer import address_of, peer_of
from service.telemetry import Field

Context = grpc.aio.ServicerContext[Any, Any]

log = get_logger("access")


@unique
class Event(StrEnum):
    """What this module logs."""

    SECURE_MODE_SET = "secure_mode_set"
    SECURE_MODE_ENDED = "secure_mode_ended"
    ADDRESS_BLOCKED = "address_blocked"
    ADDRESS_UNBLOCKED = "address_unblocked"


class AccessService(rpc.AccessServiceServicer):
    """Every change is durable before its answer. All of them are states, not steps: repeating one changes nothing."""

    def __init__(
        self, *, authority: Authority, gate: Gate, backoff: FailureBackoff, clock: Callable[[], float]
    ) -> None:
        self._authority = authority
        self._gate = gate
        self._backoff = backoff
        self._clock = clock

    async def GetCaller(self, request: pb.GetCallerRequest, context: Context) -> pb.Caller:
        peer = peer_of(context)
        return pb.Caller(
            identity=peer.uri,
            groups=sorted(peer.groups),
            roles=[
                pb.HeldRole(role=str(held.role), domains=sorted(held.domains), tenants=sorted(held.tenants))
                for held in self._authority.standing(peer).held
            ],
            expire_time=_timestamp(peer.valid_until),
        )

    async def GetAccess(self, request: pb.GetAccessRequest, context: Context) -> pb.Access:
        return self._access()

    async def SetSecureMode(self, request: pb.SetSecureModeRequest, context: Context) -> pb.Access:
        by, why = peer_of(context).uri, shortened(request.reason)
        self._gate.set_secure_mode(SecureMode(by=by, why=why, since=self._clock()) if request.on else None)
        event = Event.SECURE_MODE_SET if request.on else Event.SECURE_MODE_ENDED
        log.warning(event, **{Field.PEER: by, Field.REASON: why})
        return self._access()

    async def BlockAddress(self, request: pb.BlockAddressRequest, context: Context) -> pb.Access:
        by, why, now = peer_of(context).uri, shortened(request.reason), self._clock()
        network = parse_network(request.network)
        until = now + request.ttl_s if request.ttl_s else None
        self._gate.block(Block(network=network, by=by, why=why, since=now, until=until), caller=address_of(context))
        log.warning(Event.ADDRESS_BLOCKED, network=str(network), **{Field.PEER: by, Field.REASON: why})
        return self._access()

    async def UnblockAddress(self, request: pb.UnblockAddressRequest, context: Context) -> pb.Access:
        network = parse_network(request.network)
        self._gate.unblock(network)
        log.warning(Event.ADDRESS_UNBLOCKED, network=str(network), **{Field.PEER: peer_of(context).uri})
        return self._access()

    def _access(self) -> pb.Access:
        state, now = self._gate.state, self._clock()
        mode = state.secure_mode
        return pb.Access(
            secure_mode=pb.SecureMode()
            if mode is None
            else pb.SecureMode(on=True, by=mode.by, reason=mode.why, since=_timestamp(mode.since)),
            blocked=[
                pb.BlockedAddress(
                    network=str(each.network),
                    by=each.by,
                    reason=each.why,
                    since=_timestamp(each.since),
                    expire_time=None if each.until is None else _timestamp(each.until),
                )
                for each in state.blocks
                if each.holds(now)
            ],
            backed_off=[
                pb.BackedOff(address=key, failures=count, until=_timestamp(now + wait_s))
                for key, count, wait_s in self._backoff.waiting(now=now)
            ],
            refusals=dict(self._gate.refusals),
        )


def _timestamp(at: float) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(datetime.fromtimestamp(at, UTC))
    return timestamp
