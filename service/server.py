"""Build and run a grpc.aio server: guard, health, reflection, limits, graceful drain."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import grpc
import grpc.aio

from service.interceptors import ServerGuard


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """Sizes and times of one server."""

    message_bytes_max: int = 8 * 1024 * 1024
    streams_per_connection_max: int = 10_000
    keepalive_s: float = 30.0
    keepalive_reply_s: float = 10.0


class ServiceServer:
    """A server that is bound but not started. ``async with`` starts it and drains it on leaving."""

    @property
    def port(self) -> int:
        """The bound port: what port 0 became."""
        raise NotImplementedError

    async def start(self) -> None:
        raise NotImplementedError

    def set_serving(self, serving: bool, *, service: str = "") -> None:  # noqa: FBT001
        """Change what the health service says; "" is the whole server. It starts as NOT_SERVING."""
        raise NotImplementedError

    async def drain(self, grace_s: float) -> None:
        """Turn health to NOT_SERVING, refuse new calls, wait up to ``grace_s`` for running ones, cancel the rest. Idempotent."""
        raise NotImplementedError

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
) -> ServiceServer:
    """Build a server bound to ``host:port`` (port 0: any free one).

    ``register`` adds the servicers; ``service_names`` are their full names, for health and reflection.

    Raises:
        UnavailableError: the address is in use or not ours.
    """
    raise NotImplementedError
