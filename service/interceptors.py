"""One thin guard in front of every server method: TLS version, identity, authorisation, deadline, errors → status, telemetry."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from service.identity import Identity
from service.telemetry import Telemetry

type_Authorise = Callable[[Identity, str], None]


class ServerGuard(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """The only interceptor of a server.

    ``authorise(identity, method)`` raises `PermissionDeniedError` (or any AgentFactoryError) to refuse; ``method`` is "/package.Service/Method".
    Unary calls without a deadline, or with a longer one, end after ``unary_deadline_s``.
    """

    def __init__(
        self,
        *,
        trust_domain: str,
        authorise: Callable[[Identity, str], None],
        telemetry: Telemetry,
        unary_deadline_s: float = 120.0,
        calls_max: int = 4096,
        clock: Callable[[], float] = time.time,
    ) -> None:
        raise NotImplementedError

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        raise NotImplementedError
