"""`DistributionService` over gRPC: protobuf in, facts out to `control_plane.fan_out`, its messages back as protobuf."""

# ruff: noqa: N802 - names and signatures are those of the services

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc.aio
from agentfactory.distribution.v1 import distribution_pb2 as pb
from agentfactory.distribution.v1 import distribution_pb2_grpc as rpc
from google.protobuf.duration_pb2 import Duration

from control_plane import push
from control_plane.audit_nodes import AuditNodes
from control_plane.compressed_blobs import CompressedBlobs
from control_plane.fan_out import (
    CheckpointsMessage,
    FanOut,
    FullMessage,
    LeaseMessage,
    Message,
    PartingMessage,
    Stream,
)
from control_plane.file_blobs import BlobMissingError
from control_plane.fleet import Refusal
from service.peer import peer_identity
from service.status import ExhaustedError
from templates.reasons import AgentFactoryError, Reason

PIECE_BYTES = 256 * 1024
BLOBS_PER_FETCH_MAX = 256
FETCHES_PER_NODE_MAX = 4
WRITE_TIMEOUT_S = 60.0
PROTOCOL_VERSIONS_MAX = 16

Context = grpc.aio.ServicerContext[Any, Any]

_STAGES = {
    pb.STAGE_VERIFIED: push.Stage.VERIFIED,
    pb.STAGE_STAGED: push.Stage.STAGED,
    pb.STAGE_ACTIVE: push.Stage.ACTIVE,
}


class InvalidRequestError(AgentFactoryError):
    """A request that no correct peer sends."""

    reason = Reason.INVALID_REQUEST


class NodeRevokedError(AgentFactoryError):
    """The node is revoked: it still hears of generations, which say so, and gets no code."""

    reason = Reason.NODE_REVOKED


class DistributionService(rpc.DistributionServiceServicer):
    """Who calls is known to be a node (`control_plane.authorisation`)."""

    def __init__(self, *, fan_out: FanOut, blobs: CompressedBlobs, audit: AuditNodes) -> None:
        self._audit = audit
        self._fan_out = fan_out
        self._blobs = blobs
        self._fetching: dict[str, int] = {}

    async def Subscribe(  # type: ignore[override] # grpc.aio takes coroutines too
        self, request_iterator: AsyncIterator[pb.SubscribeRequest], context: Context
    ) -> None:
        stream = self._fan_out.join(peer_identity(context).name)
        try:
            async with asyncio.TaskGroup() as both:
                reading = both.create_task(self._read(request_iterator, stream))
                while (message := await stream.next_message()) is not None:
                    if not await _written(context, message):
                        break
                reading.cancel()
        except* AgentFactoryError as group:
            raise group.exceptions[0] from None
        finally:
            self._audit.left(stream)
            self._fan_out.left(stream)

    async def _read(self, requests: AsyncIterator[pb.SubscribeRequest], stream: Stream) -> None:
        async for request in requests:
            self._hear(request, stream)
            await self._tell_audit(request, stream)
        stream.close()

    async def _tell_audit(self, request: pb.SubscribeRequest, stream: Stream) -> None:
        match request.WhichOneof("message"):
            case "hello" if request.hello.keeps_audit_checkpoints:
                await self._audit.joined(stream, request.hello.audit_checkpoint)
            case "nack":
                await self._audit.refused(stream, _refusal(request.nack))
            case "report":
                await self._audit.reported(stream, state=request.report.state, quarantined=request.report.quarantined)
                await self._audit.echoed(stream, request.report.audit_checkpoint)
            case _:
                pass

    def _hear(self, request: pb.SubscribeRequest, stream: Stream) -> None:
        match request.WhichOneof("message"):
            case "hello":
                hello = request.hello
                if len(hello.protocol_versions) > PROTOCOL_VERSIONS_MAX:
                    raise InvalidRequestError(f"expected at most {PROTOCOL_VERSIONS_MAX} protocol versions")
                fact = push.Hello(
                    protocol_versions=frozenset(hello.protocol_versions),
                    generation=hello.generation,
                    lease_version=hello.lease_version,
                )
                self._fan_out.greeted(stream, fact, version=hello.node_version, wasmtime_version=hello.wasmtime_version)
            case "ack":
                stage = _STAGES.get(request.ack.stage)
                if stage is None:
                    raise InvalidRequestError(f"expected a stage, got {request.ack.stage}")
                self._fan_out.acked(stream, push.Acked(generation=request.ack.generation, stage=stage))
            case "nack":
                self._fan_out.nacked(stream, _refusal(request.nack))
            case "report":
                report = request.report
                self._fan_out.reported(
                    stream,
                    in_flight=report.in_flight,
                    agents=report.agents,
                    invocations=report.invocations,
                    failures=report.failures,
                    state=report.state,
                    isolation=report.isolation,
                )
            case "resync":
                self._fan_out.deliver(stream, push.ResyncAsked())
            case _:
                raise InvalidRequestError("expected hello, ack, nack, report or resync, got none of them")

    async def FetchBlobs(self, request: pb.FetchBlobsRequest, context: Context) -> AsyncIterator[pb.FetchBlobsResponse]:
        node = peer_identity(context).name
        if self._fan_out.is_revoked(node):
            raise NodeRevokedError(f"expected a node in good standing, {node} is revoked")
        if not 0 < len(request.sha256) <= BLOBS_PER_FETCH_MAX:
            raise InvalidRequestError(f"expected 1 to {BLOBS_PER_FETCH_MAX} digests, got {len(request.sha256)}")
        allowed = self._fan_out.blobs_for(node)
        wanted = [digest.hex() for digest in request.sha256]
        for sha256 in wanted:
            if sha256 not in allowed:
                raise BlobMissingError(sha256=sha256)
        if self._fetching.get(node, 0) >= FETCHES_PER_NODE_MAX:
            raise ExhaustedError(f"expected at most {FETCHES_PER_NODE_MAX} fetches of a node at a time")
        self._fetching[node] = self._fetching.get(node, 0) + 1
        try:
            for sha256 in wanted:
                frame = await self._blobs.frame(sha256)
                for start in range(0, len(frame), PIECE_BYTES):
                    yield pb.FetchBlobsResponse(
                        sha256=bytes.fromhex(sha256),
                        length=allowed[sha256],
                        piece_zstd=frame[start : start + PIECE_BYTES],
                        last=start + PIECE_BYTES >= len(frame),
                    )
        finally:
            self._fetching[node] -= 1
            if not self._fetching[node]:
                del self._fetching[node]


async def _written(context: Context, message: Message) -> bool:
    """Write one message; False when the node has not read for `WRITE_TIMEOUT_S`."""
    try:
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await context.write(_to_proto(message))
    except TimeoutError:
        return False
    return True


def _refusal(nack: pb.Nack) -> Refusal:
    phase = pb.Phase.Name(nack.phase) if nack.phase in pb.Phase.values() else "PHASE_UNSPECIFIED"
    return Refusal(
        generation=nack.generation,
        phase=phase.removeprefix("PHASE_"),
        template=nack.template,
        reason=nack.reason,
        message=nack.message,
        retryable=nack.retryable,
    )


def _to_proto(message: Message) -> pb.SubscribeResponse:
    match message:
        case FullMessage(update=update, urgent=False):
            return pb.SubscribeResponse(
                snapshot_full=pb.SnapshotFull(
                    generation=update.generation,
                    bundle_zstd=update.frame,
                    bundle_sha256=update.bundle_sha256,
                    traceparent=message.traceparent,
                )
            )
        case FullMessage(update=update):
            return pb.SubscribeResponse(
                revocation=pb.Revocation(
                    generation=update.generation,
                    bundle_zstd=update.frame,
                    bundle_sha256=update.bundle_sha256,
                    traceparent=message.traceparent,
                )
            )
        case LeaseMessage(generation=generation, timestamp=timestamp):
            return pb.SubscribeResponse(lease=pb.Lease(generation=generation, timestamp=timestamp))
        case CheckpointsMessage(documents=documents):
            return pb.SubscribeResponse(audit_checkpoints=pb.AuditCheckpoints(documents=documents))
        case PartingMessage(reason=reason, reconnect_after_s=after_s):
            after = Duration()
            after.FromTimedelta(timedelta(seconds=after_s))
            return pb.SubscribeResponse(go_away=pb.GoAway(reason=str(reason), reconnect_after=after))
