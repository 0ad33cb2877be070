"""A real server behind the guard, with one method of each kind, and identities to call it with."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.wrappers_pb2 import StringValue

from service.guard_ports import Context
from service.identity import Identity
from service.interceptors import ServerGuard
from service.local_ca import LocalCa
from service.peer import Peer
from service.server import ServerLimits, ServiceServer, build_server
from service.status import PermissionDeniedError, UnavailableError
from service.telemetry import Telemetry
from service.tls import TlsFiles, channel_credentials, server_credentials

TRUST_DOMAIN = "test.factory"
SECRET = "hunter2-do-not-tell"
SERVICE = "test.Echo"
ALICE = Identity.service(TRUST_DOMAIN, "acme", "alice")
NOBODY = Identity.service(TRUST_DOMAIN, "acme", "nobody")
NODE = Identity.node(TRUST_DOMAIN, "n1")


class Echo:
    """What the methods do is chosen by the text that is sent."""

    def __init__(self) -> None:
        self.parsed = 0
        self.cancelled = asyncio.Event()
        self.closed = asyncio.Event()
        self.started = asyncio.Event()
        self.release = asyncio.Event()

    async def unary(self, request: StringValue, context: Context) -> Any:
        self.started.set()
        match request.value:
            case "crash":
                raise ValueError(f"password is {SECRET}")
            case "timeout":
                raise TimeoutError(SECRET)
            case "busy":
                raise UnavailableError("come back", retry_s=0.25, metadata={"queue": "7"})
            case "abort":
                await context.abort(grpc.StatusCode.ABORTED, "meant to")
            case "unserialisable":
                return SECRET
            case "wait":
                try:
                    await self.release.wait()
                except asyncio.CancelledError:
                    self.cancelled.set()
                    raise
        return StringValue(value=request.value)

    async def many(self, request: StringValue, context: Context) -> AsyncIterator[Any]:
        self.started.set()
        try:
            for number in range(3):
                yield StringValue(value=f"{request.value} {number}")
            if request.value == "crash":
                raise ValueError(SECRET)
            if request.value == "unserialisable":
                yield SECRET
            if request.value == "wait":
                await self.release.wait()
            while request.value == "flood":
                yield StringValue(value="x" * 100_000)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        finally:
            self.closed.set()

    async def join(self, requests: AsyncIterator[StringValue], context: Context) -> StringValue:
        return StringValue(value=" ".join([each.value async for each in requests]))

    async def talk(self, requests: Any, context: Context) -> None:
        self.started.set()
        while (request := await context.read()) is not grpc.aio.EOF:
            if request.value == "crash":
                raise ValueError(SECRET)
            await context.write(StringValue(value=request.value.upper()))

    def register(self, server: grpc.aio.Server) -> None:
        def parse(data: bytes) -> StringValue:
            self.parsed += 1
            return StringValue.FromString(data)

        def serialise(message: Any) -> bytes:
            return StringValue.SerializeToString(message)

        kinds = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary, parse, serialise),
            "Many": grpc.unary_stream_rpc_method_handler(self.many, parse, serialise),
            "Join": grpc.stream_unary_rpc_method_handler(self.join, parse, serialise),
            "Talk": grpc.stream_stream_rpc_method_handler(self.talk, parse, serialise),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, kinds),))


class EchoStub:
    """What generated code would make."""

    def __init__(self, channel: Any) -> None:
        codec: Any = (StringValue.SerializeToString, StringValue.FromString)
        self.unary = channel.unary_unary(f"/{SERVICE}/Unary", *codec)
        self.many = channel.unary_stream(f"/{SERVICE}/Many", *codec)
        self.join = channel.stream_unary(f"/{SERVICE}/Join", *codec)
        self.talk = channel.stream_stream(f"/{SERVICE}/Talk", *codec)
        self.raw = channel.unary_unary(f"/{SERVICE}/Unary")
        self.raw_many = channel.unary_stream(f"/{SERVICE}/Many")
        self.raw_join = channel.stream_unary(f"/{SERVICE}/Join")
        self.absent = channel.unary_unary(f"/{SERVICE}/Absent")


def say(text: str) -> StringValue:
    return StringValue(value=text)


@dataclass
class World:
    """One authority, a server while `serving`, and files for every identity that is asked for."""

    directory: Path
    echo: Echo
    telemetry: Telemetry = field(default_factory=Telemetry)
    log: io.StringIO = field(default_factory=io.StringIO)
    clock: Callable[[], float] = lambda: datetime.now(UTC).timestamp()

    def __post_init__(self) -> None:
        self.authority = LocalCa.create(self.directory / "ca", trust_domain=TRUST_DOMAIN, now=datetime.now(UTC))

    def files(self, identity: Identity, *, valid: timedelta = timedelta(hours=1)) -> TlsFiles:
        now = datetime.now(UTC)
        serves = identity.kind.value in {"node", "control-plane"}
        issued = self.authority.issue(
            identity,
            now=now,
            valid=valid,
            dns_names=["localhost"] if serves else (),
            addresses=[ip_address("127.0.0.1")] if serves else (),
        )
        return issued.write(self.directory / identity.uri.removeprefix("spiffe://").replace("/", "-"))

    def authorise(self, peer: Peer, method: str) -> None:
        if peer.identity == NOBODY:
            raise PermissionDeniedError(f"expected somebody, got {peer.uri}")

    @asynccontextmanager
    async def serving(
        self, *, limits: ServerLimits | None = None, node: TlsFiles | None = None, **guard: Any
    ) -> AsyncIterator[ServiceServer]:
        options = {"authorise": self.authorise, "clock": self.clock, **guard}
        server = build_server(
            host="127.0.0.1",
            port=0,
            credentials=server_credentials(node or self.files(NODE)),
            guard=ServerGuard(trust_domain=TRUST_DOMAIN, telemetry=self.telemetry, **options),
            register=self.echo.register,
            service_names=[SERVICE],
            limits=limits,
        )
        async with server:
            yield server

    @asynccontextmanager
    async def channel(self, server: ServiceServer, identity: Identity = ALICE) -> AsyncIterator[grpc.aio.Channel]:
        credentials = channel_credentials(self.files(identity))
        async with grpc.aio.secure_channel(f"127.0.0.1:{server.port}", credentials) as channel:
            yield channel

    async def lines(self, count: int) -> list[dict[str, Any]]:
        """Wait for ``count`` lines about calls: they are written after the answer was sent."""
        async with asyncio.timeout(10):
            while True:
                found = [json.loads(line) for line in self.log.getvalue().splitlines()]
                rpc = [line for line in found if line["component"] == "rpc"]
                if len(rpc) >= count:
                    return rpc
                await asyncio.sleep(0.01)
