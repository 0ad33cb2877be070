"""The node's end of the push protocol: one Subscribe stream, FetchBlobs beside it, reconnecting for ever.

Nothing that comes in is believed; it is handed to the updater, which verifies it. Sizes are bounded before anything is
kept.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Any, Final, Protocol

import grpc
import grpc.aio
import zstandard
from agentfactory.distribution.v1 import distribution_pb2 as pb
from agentfactory.distribution.v1 import distribution_pb2_grpc
from google.protobuf.duration_pb2 import Duration

from data_plane.activation.update import Phase, SendAck, SendNack, Stage
from data_plane.generation_files import BLOB_BYTES_MAX, BlobError
from service.logs import get_logger
from service.telemetry import Field, received_trace_context, trace_metadata
from templates.bundle import WINDOW_LOG_MAX

PROTOCOL_VERSIONS: Final = (1,)
BLOBS_PER_REQUEST: Final = 256
FRAME_BYTES_MAX: Final = 64 * 1024 * 1024
MESSAGES_WAITING_MAX: Final = 256
FRAME_SLACK_BYTES: Final = 4096
CONNECT_TIMEOUT_S: Final = 30.0
RECONNECT_S_MAX: Final = 300.0
"""A node that was sent away comes back by then: nobody can put it off until its lease has run out."""

_STAGES: Final = {
    Stage.VERIFIED: pb.STAGE_VERIFIED,
    Stage.STAGED: pb.STAGE_STAGED,
    Stage.ACTIVE: pb.STAGE_ACTIVE,
}
_PHASES: Final = {
    Phase.VERIFY: pb.PHASE_VERIFY,
    Phase.STAGE: pb.PHASE_STAGE,
    Phase.ACTIVATE: pb.PHASE_ACTIVATE,
}

log = get_logger("subscriber")


@unique
class Event(StrEnum):
    """What this module logs."""

    CONNECTED = "control_plane_connected"
    DISCONNECTED = "control_plane_disconnected"
    SENT_AWAY = "control_plane_sent_away"
    FAULTED = "control_plane_conversation_faulted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What Hello says the node has."""

    generation: int
    root_version: int
    lease_version: int
    bundle_sha256: bytes
    node_version: str
    wasmtime_version: str
    audit_checkpoint: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What Report says."""

    generation: int
    in_flight: int
    agents: int
    invocations: int
    failures: int
    state: str
    isolation: str
    audit_checkpoint: bytes = b""
    quarantined: Sequence[str] = ()


class Witness(Protocol):
    """Keeps checkpoints of the control plane's audit log; `data_plane.audit_witness.AuditWitness`."""

    async def take(self, documents: Sequence[bytes]) -> None: ...


class Listener(Protocol):
    """Takes what the control plane says; `data_plane.updater.Updater`."""

    def offer(self, generation: int, frame: bytes, sha256: bytes, *, traceparent: str) -> None: ...

    async def renew_lease(self, generation: int, timestamp: bytes) -> None: ...


class Backoff:
    """Pauses between attempts: doubling, with full jitter, reset by a connection that worked."""

    def __init__(self, *, first_s: float, max_s: float, jitter: Callable[[], float]) -> None:
        """``jitter`` gives numbers from 0 to 1."""
        self._first_s = first_s
        self._max_s = max_s
        self._jitter = jitter
        self._attempts = 0

    def pause_s(self) -> float:
        ceiling: float = min(self._first_s * 2 ** min(self._attempts, 16), self._max_s)
        self._attempts += 1
        return ceiling * (0.5 + self._jitter() / 2)

    def reset(self) -> None:
        self._attempts = 0


class GrpcSubscriber:
    """Runs for as long as the node does. It is the updater's `Answers` and the stager's `BlobSource` as well."""

    def __init__(
        self,
        *,
        target: str,
        credentials: Callable[[], grpc.ChannelCredentials],
        listener: Listener,
        holding: Callable[[], Holding],
        figures: Callable[[], Awaitable[Figures]],
        backoff: Backoff,
        report_period_s: float,
        fetch_timeout_s: float,
        witness: Witness | None = None,
    ) -> None:
        """``credentials`` is asked for every connection: a certificate that was renewed is shown without a restart."""
        self._witness = witness
        self._target = target
        self._credentials = credentials
        self._listener = listener
        self._holding = holding
        self._figures = figures
        self._backoff = backoff
        self._report_period_s = report_period_s
        self._fetch_timeout_s = fetch_timeout_s
        self._outgoing: asyncio.Queue[pb.SubscribeRequest] | None = None
        self._stub: distribution_pb2_grpc.DistributionServiceAsyncStub | None = None
        self.connected = False

    # Answers

    def ack(self, ack: SendAck, *, took_s: float) -> None:
        took = Duration()
        took.FromNanoseconds(int(took_s * 1e9))
        self._send(pb.SubscribeRequest(ack=pb.Ack(generation=ack.generation, stage=_STAGES[ack.stage], took=took)))

    def nack(self, nack: SendNack) -> None:
        refusal = nack.refusal
        self._send(
            pb.SubscribeRequest(
                nack=pb.Nack(
                    generation=refusal.generation,
                    phase=_PHASES[refusal.phase],
                    template=refusal.template,
                    reason=str(refusal.reason),
                    message=refusal.message[:2_000],
                    retryable=refusal.retryable,
                )
            )
        )

    def resync(self, reason: str) -> None:
        self._send(pb.SubscribeRequest(resync=pb.Resync(reason=reason[:500])))

    # BlobSource

    async def fetch(self, wanted: Mapping[str, int], keep: Callable[[str, bytes], Awaitable[None]]) -> None:
        """Fetch blobs; each is decompressed within its declared length and checked before it is kept.

        Raises:
            BlobError: no connection, a refusal, a wrong length or digest, or no answer in time.
        """
        stub = self._stub
        if stub is None:
            raise BlobError("expected a connected control plane to fetch blobs from", metadata={})
        digests = sorted(wanted)
        try:
            async with asyncio.timeout(self._fetch_timeout_s):
                for start in range(0, len(digests), BLOBS_PER_REQUEST):
                    some = digests[start : start + BLOBS_PER_REQUEST]
                    request = pb.FetchBlobsRequest(sha256=[bytes.fromhex(each) for each in some])
                    left = {each: wanted[each] for each in some}
                    pieces = stub.FetchBlobs(request, metadata=trace_metadata())
                    async for sha256, data in received_blobs(pieces, left):
                        await keep(sha256, data)
        except TimeoutError:
            raise BlobError(f"expected blobs within {self._fetch_timeout_s:g} s", metadata={}) from None
        except grpc.aio.AioRpcError as error:
            message = f"expected blobs, got {error.code().name}: {error.details()}"
            raise BlobError(message, metadata={}) from error

    # The stream

    async def run(self) -> None:
        """Connect, converse, and connect again, for ever."""
        while True:
            pause_s = None
            try:
                pause_s = await self._converse()
            except grpc.aio.AioRpcError as error:
                log.warning(Event.DISCONNECTED, **{Field.CODE: error.code().name, Field.ERROR: error.details() or ""})
            except TimeoutError:
                log.warning(Event.DISCONNECTED, **{Field.CODE: "UNAVAILABLE", Field.ERROR: "no connection in time"})
            except Exception:  # the edge: nothing that a control plane says may end the node, which serves without it
                log.exception(Event.FAULTED)
            await asyncio.sleep(self._backoff.pause_s() if pause_s is None else pause_s)

    async def _converse(self) -> float | None:
        """Hold one stream until it ends; return when to come back, if the control plane said so."""
        options = (
            ("grpc.max_receive_message_length", FRAME_BYTES_MAX),
            ("grpc.max_send_message_length", 1024 * 1024),
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 1_000),
        )
        async with grpc.aio.secure_channel(self._target, self._credentials(), options=options) as channel:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await channel.channel_ready()
            stub: Any = distribution_pb2_grpc.DistributionServiceStub(channel)
            outgoing: asyncio.Queue[pb.SubscribeRequest] = asyncio.Queue(MESSAGES_WAITING_MAX)
            outgoing.put_nowait(pb.SubscribeRequest(hello=_hello(self._holding(), witness=self._witness is not None)))
            stream = stub.Subscribe(_messages(outgoing))
            self._stub, self._outgoing = stub, outgoing
            reporting = asyncio.ensure_future(self._report())
            try:
                self.connected = True
                log.info(Event.CONNECTED, target=self._target)
                async for message in stream:
                    self._backoff.reset()
                    if message.WhichOneof("message") == "go_away":
                        log.info(Event.SENT_AWAY, **{Field.REASON: message.go_away.reason})
                        return reconnect_pause_s(message.go_away.reconnect_after)
                    await self._take(message)
                return None
            finally:
                self.connected = False
                self._stub = self._outgoing = None
                reporting.cancel()
                stream.cancel()

    async def _take(self, message: pb.SubscribeResponse) -> None:
        match message.WhichOneof("message"):
            case "snapshot_full":
                self._offer(message.snapshot_full)
            case "revocation":
                self._offer(message.revocation)
            case "lease":
                await self._listener.renew_lease(message.lease.generation, message.lease.timestamp)
            case "audit_checkpoints" if self._witness is not None:
                await self._witness.take(message.audit_checkpoints.documents)
            case _:  # a patch against what the node holds, or something newer than this node
                self.resync("expected a full snapshot, a revocation or a lease")

    def _offer(self, update: pb.SnapshotFull | pb.Revocation) -> None:
        self._listener.offer(
            update.generation,
            update.bundle_zstd,
            update.bundle_sha256,
            traceparent=received_trace_context(update.traceparent),
        )

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(self._report_period_s)
            figures = await self._figures()
            self._send(
                pb.SubscribeRequest(
                    report=pb.Report(
                        generation=figures.generation,
                        in_flight=figures.in_flight,
                        agents=figures.agents,
                        invocations=figures.invocations,
                        failures=figures.failures,
                        state=figures.state,
                        isolation=figures.isolation,
                        audit_checkpoint=figures.audit_checkpoint,
                        quarantined=figures.quarantined,
                    )
                )
            )

    def _send(self, message: pb.SubscribeRequest) -> None:
        """Queue a message; without a connection, or when the stream is stuck, it is lost, and Hello says it anew."""
        if self._outgoing is not None and not self._outgoing.full():
            self._outgoing.put_nowait(message)


def reconnect_pause_s(after: Duration) -> float | None:
    """Return when to come back, None for "as usual". Duration's own conversion fails on numbers out of its range."""
    asked_s = after.seconds + after.nanos / 1e9
    return min(asked_s, RECONNECT_S_MAX) if asked_s > 0 else None


async def received_blobs(
    pieces: AsyncIterable[pb.FetchBlobsResponse], wanted: Mapping[str, int]
) -> AsyncIterator[tuple[str, bytes]]:
    """Put blobs together from their pieces: only wanted ones, each once, of exactly the length that was approved.

    Nothing is decompressed before the frame's own header has promised that length; the digest is checked by whoever
    keeps the blob.

    Raises:
        BlobError: anything else, before more than the approved length is held.
    """
    left = dict(wanted)
    current = ""
    frame = bytearray()
    async for piece in pieces:
        name = piece.sha256.hex()
        if not current:
            if name not in left or piece.length != left[name] or piece.length > BLOB_BYTES_MAX:
                raise _blob_error(name, "a blob that was asked for, of the approved length")
            current, frame = name, bytearray()
        if name != current:
            raise _blob_error(name, "the rest of the blob before")
        frame += piece.piece_zstd
        if len(frame) > left[name] + left[name] // 128 + FRAME_SLACK_BYTES:
            raise _blob_error(name, f"a frame over {left[name]} bytes")
        if piece.last:
            current = ""
            yield name, _content(name, bytes(frame), left.pop(name))
    if left:
        raise _blob_error(next(iter(left)), "to be sent")


def _content(sha256: str, frame: bytes, length: int) -> bytes:
    if length == 0:
        return b""
    try:
        declared = zstandard.get_frame_parameters(frame)
        if declared.content_size != length or declared.window_size > 1 << WINDOW_LOG_MAX:
            raise _blob_error(sha256, f"a frame that declares {length} bytes and a small window")
        return zstandard.ZstdDecompressor(max_window_size=1 << WINDOW_LOG_MAX).decompress(
            frame, max_output_size=length, allow_extra_data=False
        )
    except zstandard.ZstdError:
        raise _blob_error(sha256, "one zstd frame") from None


def _blob_error(sha256: str, expected: str) -> BlobError:
    return BlobError(f"blob {sha256}: expected {expected}, got something else", metadata={"sha256": sha256})


def _hello(holding: Holding, *, witness: bool) -> pb.Hello:
    return pb.Hello(
        protocol_versions=PROTOCOL_VERSIONS,
        node_version=holding.node_version,
        wasmtime_version=holding.wasmtime_version,
        generation=holding.generation,
        root_version=holding.root_version,
        lease_version=holding.lease_version,
        bundle_sha256=holding.bundle_sha256,
        keeps_audit_checkpoints=witness,
        audit_checkpoint=holding.audit_checkpoint,
    )


async def _messages(outgoing: "asyncio.Queue[pb.SubscribeRequest]") -> AsyncIterator[pb.SubscribeRequest]:
    while True:
        yield await outgoing.get()
