"""The peer of a gRPC call: TLS version, certificate, identity. Read once per certificate, then remembered by its bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from service.identity import Identity
from templates.reasons import AgentFactoryError, Reason

CERTIFICATES_REMEMBERED_MAX: Final = 4096


class TlsVersionError(AgentFactoryError):
    """The connection is not mutual TLS 1.3: grpc itself would have let it in."""

    reason = Reason.TLS_REQUIRED


class UnauthenticatedError(AgentFactoryError):
    """The certificate is missing, out of date, or of a foreign trust domain."""

    reason = Reason.UNAUTHENTICATED


class CallContext(Protocol):
    """What this module needs of ``grpc.ServicerContext`` and ``grpc.aio.ServicerContext`` alike."""

    def auth_context(self) -> Mapping[str, list[bytes]]:
        """Return the properties of the connection, as grpc names them."""
        ...


@dataclass(frozen=True, slots=True)
class Peer:
    """An authenticated peer; ``valid_until`` is its certificate's end, in seconds since the epoch."""

    identity: Identity
    valid_until: float


def peer_of(context: CallContext, /) -> Peer:
    """Return the peer of this call.

    Raises:
        TlsVersionError: not TLS 1.3.
        UnauthenticatedError: no certificate.
        InvalidIdentityError: the certificate does not hold exactly one of our URIs.
    """
    raise NotImplementedError


def peer_identity(context: CallContext, /) -> Identity:
    """Return ``peer_of(context).identity``: what a servicer asks for."""
    return peer_of(context).identity
