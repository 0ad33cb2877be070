"""The one table from a reason to a gRPC status, the way out (`to_status`) and the way back (`from_rpc_error`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import grpc
from google.rpc import status_pb2

from templates.reasons import AgentFactoryError, Reason

ERROR_DOMAIN: Final = "agentfactory"

STATUS: Final = MappingProxyType(
    {
        Reason.CALLS_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.CANCELLED: grpc.StatusCode.CANCELLED,
        Reason.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
        Reason.GENERATION_ROLLBACK: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.INVALID_IDENTITY: grpc.StatusCode.UNAUTHENTICATED,
        Reason.INTERNAL: grpc.StatusCode.INTERNAL,
        Reason.EXPOSED_KEY_FILE: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.INVALID_KEY_FILE: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.WRONG_PASSPHRASE: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.INVALID_LOCAL_CA: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
        Reason.SERVER_DRAINING: grpc.StatusCode.UNAVAILABLE,
        Reason.INVALID_PROFILE: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.INVALID_SETTINGS: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.INVALID_TLS_FILES: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.TLS_REQUIRED: grpc.StatusCode.UNAUTHENTICATED,
        Reason.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
        Reason.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    }
)


class PermissionDeniedError(AgentFactoryError):
    """The peer is known, and may not do this."""

    reason = Reason.PERMISSION_DENIED


class UnavailableError(AgentFactoryError):
    """Not now; the same call may succeed after ``retry_s``."""

    reason = Reason.UNAVAILABLE

    def __init__(self, message: str, *, retry_s: float = 1.0, metadata: dict[str, str] | None = None) -> None:
        super().__init__(message, metadata=metadata)
        self.retry_s = retry_s


class ExhaustedError(UnavailableError):
    """Too many calls at once; the caller backs off for ``retry_s``."""

    reason = Reason.CALLS_EXHAUSTED


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """One thing wrong with a request: where (a JSON pointer or field path), what, and its stable code."""

    field: str
    description: str
    code: str = ""


class RemoteError(AgentFactoryError):
    """What a server said: ``reason``, ``message`` and ``metadata`` as it sent them.

    ``reason`` is INTERNAL when this version does not know the server's; ``reason_text`` is what was sent.
    """

    code: grpc.StatusCode
    reason_text: str
    violations: Sequence[FieldViolation]
    retry_s: float | None


def to_status(error: AgentFactoryError) -> status_pb2.Status:
    """Return what the peer gets: code, message, ErrorInfo; RetryInfo if the error has ``retry_s``; BadRequest if it has ``problems``."""
    raise NotImplementedError


def from_rpc_error(error: grpc.RpcError) -> RemoteError:
    """Return the error that the server meant; transport failures become UNAVAILABLE, DEADLINE_EXCEEDED or CANCELLED."""
    raise NotImplementedError
