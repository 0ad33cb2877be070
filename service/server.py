"""Build and run a grpc.aio server: guard, health, reflection, limits, graceful drain."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from service.interceptors import ServerGuard
from service.status import UnavailableError

NOTICE_S: Final = 0.05

_HEALTH: Final = health.SERVICE_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """Sizes and times of one server.

    ``streams_per_connection_max`` is HTTP/2's limit: calls beyond it wait in the client. ``keepalive_s`` is how often a
    silent connection is asked, ``keepalive_reply_s`` how long it may take to answer before it is given up, and
    ``ping_pause_s_min`` how often clients may ask us.
    """

    message_bytes_max: int = 8 * 1024 * 1024
    metadata_bytes_max: int = 16 * 1024
    streams_per_connection_max: int = 10_000
    keepalive_s: float = 30.0
    keepalive_reply_s: float = 10.0
    ping_pause_s_min: float = 10.0

    def options(self) -> Sequence[tuple[str, int]]:
        """Return them as grpc channel arguments."""
        return (
            ("grpc.max_receive_message_length", self.message_bytes_max),
            ("grpc.max_send_message_length", self.message_bytes_max),
            ("grpc.absolute_max_metadata_size", self.metadata_bytes_max),
            ("grpc.max_concurrent_streams", self.streams_per_connection_max),
            ("grpc.keepalive_time_ms", round(self.keepalive_s * 1000)),
            ("grpc.keepalive_timeout_ms", round(self.keepalive_reply_s * 1000)),
            ("grpc.http2.min_ping_interval_without_data_ms", round(self.ping_pause_s_min * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.so_reuseport", 0),  # two servers on one port are a mistake here, not a plan
        )


class ServiceServer:
    """A server that is bound but not started. ``async with`` starts it, and on leaving stops it without grace."""

    def __init__(
        self,
        server: grpc.aio.Server,
        guard: ServerGuard,
        checked: health.aio.HealthServicer,
        *,
        port: int,
        service_names: Sequence[str],
        people_port: int | None = None,
    ) -> None:
        self.people_port = people_port
        self._server = server
        self._guard = guard
        self._health = checked
        self._port = port
        self._service_names = tuple(service_names)
        self._stopping: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The bound port: what port 0 became."""
        return self._port

    async def start(self) -> None:
        """Begin to accept calls; health says NOT_SERVING until `set_serving`."""
        for service in ("", *self._service_names):
            await self._health.set(service, health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._server.start()

    async def set_serving(self, *, serving: bool) -> None:
        """Change what the health service says, of the whole server and each of its services."""
        response = health_pb2.HealthCheckResponse
        for service in ("", *self._service_names):
            await self._health.set(service, response.SERVING if serving else response.NOT_SERVING)

    async def drain(self, grace_s: float) -> None:
        """Stop: health says NOT_SERVING, new calls are refused, running ones have ``grace_s``, the rest is cancelled.

        Streams that never end by themselves are ended at once (`ServerGuard`'s ``ended_by_drain``). Idempotent: a
        second caller waits for the first.
        """
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._drain(grace_s), name="server-drain")
        await asyncio.shield(self._stopping)

    async def _drain(self, grace_s: float) -> None:
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(min(NOTICE_S, grace_s))  # watchers of health learn it before their streams end
        self._guard.begin_drain()
        await self._server.stop(grace_s or None)
        self._guard.settle()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.drain(0.0)


def build_server(
    *,
    host: str,
    port: int,
    credentials: grpc.ServerCredentials,
    guard: ServerGuard,
    register: Callable[[grpc.aio.Server], None],
    service_names: Sequence[str],
    limits: ServerLimits | None = None,
    people: tuple[int, grpc.ServerCredentials] | None = None,
) -> ServiceServer:
    """Build a server bound to ``host:port`` (port 0: any free one). Call it where the loop runs.

    ``register`` adds the servicers; ``service_names`` are their full names, for health and reflection. ``people`` is a
    second port, with credentials that ask for no certificate: the guard judges tokens there.

    Raises:
        UnavailableError: the address is in use or not ours.
    """
    server = grpc.aio.server(interceptors=[guard], options=(limits or ServerLimits()).options())
    register(server)
    checked = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checked, server)
    reflection.enable_server_reflection([*service_names, _HEALTH, reflection.SERVICE_NAME], server)
    bound = _bind(server, host, port, credentials)
    people_port = None if people is None else _bind(server, host, *people)
    return ServiceServer(server, guard, checked, port=bound, service_names=service_names, people_port=people_port)


def _bind(server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials) -> int:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise UnavailableError(f"expected a free address of this machine, got {address}") from error
