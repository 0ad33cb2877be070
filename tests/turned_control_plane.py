"""A control plane that has turned: a genuine identity, whatever bytes a test wants to push, and what nodes answer."""

import queue
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import grpc
from agentfactory.distribution.v1 import distribution_pb2 as pb
from agentfactory.distribution.v1.distribution_pb2_grpc import (
    DistributionServiceServicer,
    add_DistributionServiceServicer_to_server,
)

from service.tls import server_credentials
from templates.bundle import compress
from templates.canonical import sha256_hex
from tests.installation import LocalInstallation

ANSWER_TIMEOUT_S = 60.0


@dataclass(slots=True)
class TurnedControlPlane(DistributionServiceServicer):
    """Serves one node; ``blobs`` may be other bytes than their digests say."""

    installation: LocalInstallation
    blobs: Mapping[str, bytes]
    port: int = 0
    _pushes: "queue.Queue[pb.SubscribeResponse | None]" = field(default_factory=queue.Queue)
    _said: "queue.Queue[pb.Ack | pb.Nack]" = field(default_factory=queue.Queue)
    _server: grpc.Server | None = None

    def Subscribe(  # noqa: N802
        self, request_iterator: Iterator[pb.SubscribeRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.SubscribeResponse]:
        def listen() -> None:
            try:
                for message in request_iterator:
                    if message.HasField("ack"):
                        self._said.put(message.ack)
                    elif message.HasField("nack"):
                        self._said.put(message.nack)
            except grpc.RpcError:
                self._pushes.put(None)

        threading.Thread(target=listen, daemon=True).start()
        while (push := self._pushes.get()) is not None:
            yield push

    def FetchBlobs(  # noqa: N802
        self, request: pb.FetchBlobsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.FetchBlobsResponse]:
        for digest in request.sha256:
            data = self.blobs[digest.hex()]
            yield pb.FetchBlobsResponse(sha256=digest, length=len(data), piece_zstd=compress(data), last=True)

    def push(self, generation: int, bundle: bytes, *, sha256: str | None = None) -> pb.Ack | pb.Nack:
        """Push a bundle; return the node's last word on it: an Ack of STAGE_ACTIVE or a Nack."""
        self._pushes.put(
            pb.SubscribeResponse(
                snapshot_full=pb.SnapshotFull(
                    generation=generation,
                    bundle_zstd=compress(bundle),
                    bundle_sha256=bytes.fromhex(sha256 or sha256_hex(bundle)),
                )
            )
        )
        while True:
            said = self._said.get(timeout=ANSWER_TIMEOUT_S)
            if isinstance(said, pb.Nack) or said.stage == pb.STAGE_ACTIVE:
                return said

    def __enter__(self) -> Self:
        server = grpc.server(ThreadPoolExecutor(4), options=(("grpc.so_reuseport", 0),))
        add_DistributionServiceServicer_to_server(self, server)
        self.port = server.add_secure_port("127.0.0.1:0", server_credentials(self.installation.control_plane()))
        server.start()
        self._server = server
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pushes.put(None)
        if self._server is not None:
            self._server.stop(grace=None).wait()
