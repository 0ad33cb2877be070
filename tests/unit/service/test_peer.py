from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from service.identity import Identity, InvalidIdentityError
from service.interceptors import ServerGuard
from service.peer import TlsVersionError, UnauthenticatedError, peer_identity, peer_of
from service.telemetry import Telemetry

ENDS = datetime(2026, 6, 1, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(*uris: str) -> bytes:
    name = x509.Name([])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2026, 5, 1, tzinfo=UTC))
        .not_valid_after(ENDS)
    )
    if uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(KEY, SHA256()).public_bytes(Encoding.PEM)


class Call:
    """What grpc says about the connection of a call."""

    def __init__(self, **properties: list[bytes]) -> None:
        self.properties = properties

    def auth_context(self) -> dict[str, list[bytes]]:
        return self.properties


NODE = certificate("spiffe://factory.local/node/n1")


def test_a_peer_is_its_certificates_identity_until_the_certificate_ends() -> None:
    call = Call(ssl_tls_version=[b"TLSv1.3"], x509_pem_cert=[NODE])
    assert peer_identity(call) == Identity.node("factory.local", "n1")
    assert peer_of(call).valid_until == ENDS.timestamp()


@pytest.mark.parametrize("versions", [None, [], [b"TLSv1.2"], [b"TLSv1.3", b"TLSv1.2"], [b"TLSv1.3 "], [b""]])
def test_any_other_version_is_refused(versions: list[bytes] | None) -> None:
    properties = {"x509_pem_cert": [NODE]} | ({} if versions is None else {"ssl_tls_version": versions})
    with pytest.raises(TlsVersionError):
        peer_of(Call(**properties))


@pytest.mark.parametrize(
    ("certificates", "error"),
    [
        (None, UnauthenticatedError),
        ([], UnauthenticatedError),
        ([NODE, NODE], UnauthenticatedError),
        ([b""], UnauthenticatedError),
        ([b"hello"], UnauthenticatedError),
        ([certificate()], InvalidIdentityError),
        ([certificate("https://factory.local/node/n1")], InvalidIdentityError),
        ([certificate("spiffe://a/node/n1", "spiffe://a/node/n2")], InvalidIdentityError),
    ],
)
def test_no_certificate_or_another_one_is_refused(certificates: list[bytes] | None, error: type[Exception]) -> None:
    properties = {"ssl_tls_version": [b"TLSv1.3"]} | ({} if certificates is None else {"x509_pem_cert": certificates})
    with pytest.raises(error):
        peer_of(Call(**properties))


def test_a_peer_is_read_once_per_call_and_never_taken_for_that_of_another_call() -> None:
    asked = []

    class Counted(Call):
        def auth_context(self) -> Any:
            asked.append(self)
            return super().auth_context()

    first = Counted(ssl_tls_version=[b"TLSv1.3"], x509_pem_cert=[NODE])
    assert peer_of(first) is peer_of(first)
    assert asked == [first]
    with pytest.raises(UnauthenticatedError):
        peer_of(Counted(ssl_tls_version=[b"TLSv1.3"]))


def synchronous(request: Any, context: Any) -> Any:
    return request


@pytest.mark.parametrize(
    "handler", [grpc.unary_unary_rpc_method_handler(synchronous), grpc.unary_stream_rpc_method_handler(synchronous)]
)
async def test_a_method_that_would_block_the_loop_is_not_served(handler: Any) -> None:
    guard = ServerGuard(trust_domain="factory.local", authorise=lambda _identity, _method: None, telemetry=Telemetry())

    class Details:
        method = "/a.B/C"
        invocation_metadata = ()

    async def found(_details: Any) -> Any:
        return handler

    details: Any = Details()
    with pytest.raises(TypeError, match="expected a coroutine function"):
        await guard.intercept_service(found, details)
    assert guard.in_flight == 0
