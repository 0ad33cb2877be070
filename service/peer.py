"""The peer of a gRPC call: TLS version, certificate, identity. Read once per certificate, remembered by its bytes.

A person may show a token instead, where a server has a listener for them: `service.access.token_door` judges it and
has the call `adopt` the peer. A call that shows a certificate is judged by that alone.
"""

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Protocol
from urllib.parse import unquote

from cryptography import x509

from service.identity import Identity, identity_of_certificate
from templates.reasons import AgentFactoryError, Reason

CERTIFICATES_REMEMBERED_MAX: Final = 4096

# Property names as grpcio 1.85.1 sends them (found by printing `context.auth_context()`).
_TLS_VERSION: Final = "ssl_tls_version"
_CERTIFICATE: Final = "x509_pem_cert"
_TLS_1_3: Final = [b"TLSv1.3"]


class TlsVersionError(AgentFactoryError):
    """The connection is not mutual TLS 1.3: grpc itself would have let it in."""

    reason = Reason.TLS_REQUIRED


class UnauthenticatedError(AgentFactoryError):
    """The certificate is missing, out of date, or of a foreign trust domain."""

    reason = Reason.UNAUTHENTICATED


class CallContext(Protocol):
    """What this module needs of ``grpc.ServicerContext`` and ``grpc.aio.ServicerContext`` alike."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Return the properties of the connection, as grpc names them."""
        ...


class AddressedContext(CallContext, Protocol):
    """A context that knows where its call comes from as well."""

    def peer(self) -> str:
        """Return "ipv4:192.0.2.7:40000" or "ipv6:%5B2001:db8::1%5D:40000"."""
        ...


@dataclass(frozen=True, slots=True)
class Peer:
    """An authenticated peer.

    ``valid_until`` is the end of its certificate or token, in seconds since the epoch. ``groups`` are those of a token;
    ``serial`` is the number of a certificate as revocations name it (``serial:`` and hexadecimal digits).
    """

    identity: Identity
    valid_until: float
    groups: frozenset[str] = frozenset()
    serial: str = ""
    uri: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "uri", self.identity.uri)  # once: every call logs it


def peer_of(context: CallContext, /) -> Peer:
    """Return the peer of this call.

    That an authority signed the certificate was settled by the handshake. That it has not run out since is for the
    caller to compare with its clock (`ServerGuard` does), because a connection may live longer than a certificate.

    Raises:
        TlsVersionError: not TLS 1.3.
        UnauthenticatedError: no certificate.
        InvalidIdentityError: the certificate does not hold exactly one of our URIs.
    """
    known = _judged.get()
    if known is not None and known[0] is context:
        return known[1]
    peer = _read(context)
    _judged.set((context, peer))
    return peer


def shows_certificate(context: CallContext, /) -> bool:
    """Say whether the call shows a certificate, whatever it is worth; raise `TlsVersionError` unless TLS 1.3."""
    known = _judged.get()
    if known is not None and known[0] is context:
        return True
    certificates = _certificates(context)
    if len(certificates) == 1:
        _judged.set((context, _peer_of_certificate(certificates[0])))
    return bool(certificates)


def adopt(context: CallContext, peer: Peer, /) -> None:
    """Have `peer_of` return ``peer`` for this call, whose token was verified."""
    _judged.set((context, peer))


def address_of(context: AddressedContext, /) -> str:
    """Return the address that the call comes from, without its port; "" where there is none (a Unix socket)."""
    family, _, rest = context.peer().partition(":")
    if family not in {"ipv4", "ipv6"}:
        return ""
    host = unquote(rest).rpartition(":")[0].strip("[]")
    return host.partition("%")[0]


def _read(context: CallContext) -> Peer:
    certificates = _certificates(context)
    if len(certificates) != 1:
        raise UnauthenticatedError(f"expected one client certificate, got {len(certificates)}")
    return _peer_of_certificate(certificates[0])


def _certificates(context: CallContext) -> list[bytes]:
    properties = context.auth_context()
    versions = list(properties.get(_TLS_VERSION, ()))
    if versions != _TLS_1_3:
        got = b", ".join(versions).decode("ascii", "replace") or "a connection without TLS"
        raise TlsVersionError(f"expected TLSv1.3, got {got}")
    return list(properties.get(_CERTIFICATE, ()))


def peer_identity(context: CallContext, /) -> Identity:
    """Return ``peer_of(context).identity``: what a servicer asks for."""
    return peer_of(context).identity


# grpc makes the properties anew whenever it is asked: guard and servicer ask once between them. A call has a task, and
# with it a context of variables, of its own.
_judged: ContextVar[tuple[CallContext, Peer] | None] = ContextVar("judged_peer", default=None)


# Refusals are exceptions and so not remembered: strangers cannot push known peers out.
@lru_cache(maxsize=CERTIFICATES_REMEMBERED_MAX)
def _peer_of_certificate(pem: bytes) -> Peer:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise UnauthenticatedError("expected a client certificate in X.509, got something else") from error
    return Peer(
        identity_of_certificate(certificate),
        certificate.not_valid_after_utc.timestamp(),
        serial=f"serial:{certificate.serial_number:x}",
    )
