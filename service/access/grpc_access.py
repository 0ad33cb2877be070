"""AccessService: who the caller is here, secure mode, blocked addresses. Both planes serve it."""

# ruff: noqa: N802, ARG002 -- names and signatures are those of the service

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum, unique
from typing import Any, Final, Protocol

import grpc.aio
from agentfactory.admin.v1 import access_pb2 as pb
from agentfactory.admin.v1 import access_pb2_grpc as rpc
from google.protobuf.timestamp_pb2 import Timestamp

from service.access.authority import Authority
from service.access.backoff import FailureBackoff
from service.access.gate import Gate
from service.access.protection import AccessState, Block, SecureMode, parse_network, shortened
from service.access.state_file import state_bytes
from service.logs import get_logger
from service.peer import Peer, address_of, peer_of
from service.telemetry import Field

Context = grpc.aio.ServicerContext[Any, Any]

_SERVICE: Final = "agentfactory.admin.v1.AccessService"
_SECURE_MODE: Final = "access/secure-mode"

log = get_logger("access")


@unique
class Event(StrEnum):
    """What this module logs."""

    SECURE_MODE_SET = "secure_mode_set"
    SECURE_MODE_ENDED = "secure_mode_ended"
    ADDRESS_BLOCKED = "address_blocked"
    ADDRESS_UNBLOCKED = "address_unblocked"


class Record(Protocol):
    """Keeps what was decided, where a server has a place for it."""

    def about(self, resource: str) -> None:
        """Hear what the call is about, before it is done or refused."""
        ...

    async def changed(self, resource: str, *, state_sha256: str, why: str, details: Mapping[str, str]) -> None:
        """Hear of a change that is durable; what this raises becomes the answer, and undoes nothing."""
        ...


class NoRecord:
    """Where the log of the process is all."""

    def about(self, resource: str) -> None:
        pass

    async def changed(self, resource: str, *, state_sha256: str, why: str, details: Mapping[str, str]) -> None:
        pass


class AccessService(rpc.AccessServiceServicer):
    """Every change is durable before its answer. All of them are states, not steps: repeating one changes nothing."""

    def __init__(
        self,
        *,
        authority: Authority,
        gate: Gate,
        backoff: FailureBackoff,
        clock: Callable[[], float],
        record: Record | None = None,
    ) -> None:
        self._record = record or NoRecord()
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
        self._record.about(_SECURE_MODE)
        by, why = self._caller(context, "SetSecureMode").uri, shortened(request.reason)
        before = self._gate.state
        self._gate.set_secure_mode(SecureMode(by=by, why=why, since=self._clock()) if request.on else None)
        event = Event.SECURE_MODE_SET if request.on else Event.SECURE_MODE_ENDED
        log.warning(event, **{Field.PEER: by, Field.REASON: why})
        await self._changed(before, _SECURE_MODE, why=why, mode="on" if request.on else "off")
        return self._access()

    async def BlockAddress(self, request: pb.BlockAddressRequest, context: Context) -> pb.Access:
        by, why, now = self._caller(context, "BlockAddress").uri, shortened(request.reason), self._clock()
        network = parse_network(request.network)
        self._record.about(f"addresses/{network}")
        before, until = self._gate.state, now + request.ttl_s if request.ttl_s else None
        self._gate.block(Block(network=network, by=by, why=why, since=now, until=until), caller=address_of(context))
        log.warning(Event.ADDRESS_BLOCKED, network=str(network), **{Field.PEER: by, Field.REASON: why})
        await self._changed(before, f"addresses/{network}", why=why, ttl_s=str(request.ttl_s))
        return self._access()

    async def UnblockAddress(self, request: pb.UnblockAddressRequest, context: Context) -> pb.Access:
        by = self._caller(context, "UnblockAddress").uri
        network = parse_network(request.network)
        self._record.about(f"addresses/{network}")
        before = self._gate.state
        self._gate.unblock(network)
        log.warning(Event.ADDRESS_UNBLOCKED, network=str(network), **{Field.PEER: by})
        await self._changed(before, f"addresses/{network}", why="")
        return self._access()

    def _caller(self, context: Context, method: str) -> Peer:
        """Return who calls, if they may do this to everybody's server."""
        peer = peer_of(context)
        self._authority.require_everywhere(peer, f"/{_SERVICE}/{method}")
        return peer

    async def _changed(self, before: AccessState, resource: str, *, why: str, **details: str) -> None:
        state = self._gate.state
        if state != before:
            sha256 = hashlib.sha256(state_bytes(state)).hexdigest()
            await self._record.changed(resource, state_sha256=sha256, why=why, details=details)

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
