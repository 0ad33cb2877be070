"""Handshakes: who is let in, who is not, and what grpc would have accepted without us."""

import asyncio
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from service.identity import Identity
from service.interceptors import ServerGuard
from service.local_ca import LocalCa
from service.server import build_server
from service.status import from_rpc_error
from service.tls import TlsFiles, TlsFilesError, certificate_of, channel_credentials, server_credentials
from templates.reasons import AgentFactoryError, Reason
from tests.integration.echo_world import ALICE, NODE, TRUST_DOMAIN, Echo, EchoStub, World, say


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, Echo())


async def refusal(address: str, credentials: grpc.ChannelCredentials) -> grpc.aio.AioRpcError:
    async with grpc.aio.secure_channel(address, credentials) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await EchoStub(channel).unary(say("x"), timeout=5)
        return caught.value


def sign(world: World, uris: list[str], **names: Any) -> tuple[bytes, bytes]:
    """Sign a client certificate that our authority would never issue."""
    authority = x509.load_pem_x509_certificate(world.authority.certificate)
    authority_key: Any = load_pem_private_key((world.directory / "ca" / "ca.key").read_bytes(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + names.get("valid", timedelta(hours=1)))
    )
    if uris:
        san = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(san, critical=False)
    certificate = builder.sign(authority_key, SHA256())
    return certificate.public_bytes(Encoding.PEM), key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


async def test_a_client_without_certificate_gets_no_connection(world: World) -> None:
    async with world.serving() as server:
        credentials = grpc.ssl_channel_credentials(world.authority.certificate)
        error = await refusal(f"127.0.0.1:{server.port}", credentials)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert world.echo.parsed == 0


async def test_a_client_of_a_strange_authority_gets_no_connection(world: World) -> None:
    strange = LocalCa.create(world.directory / "strange", trust_domain=TRUST_DOMAIN, now=datetime.now(UTC))
    issued = strange.issue(ALICE, now=datetime.now(UTC))
    files = replace(issued.write(world.directory / "s"), authorities=world.directory / "ca" / "ca.pem")
    async with world.serving() as server:
        error = await refusal(f"127.0.0.1:{server.port}", channel_credentials(files))
        assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_an_expired_client_gets_no_connection(world: World) -> None:
    certificate, key = sign(world, [ALICE.uri], valid=timedelta(minutes=-1))
    credentials = grpc.ssl_channel_credentials(world.authority.certificate, key, certificate)
    async with world.serving() as server:
        assert (await refusal(f"127.0.0.1:{server.port}", credentials)).code() is grpc.StatusCode.UNAVAILABLE


async def test_plaintext_is_no_language_here(world: World) -> None:
    async with world.serving() as server, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await EchoStub(channel).unary(say("x"), timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    "uris",
    [
        [],
        [ALICE.uri, NODE.uri],
        [ALICE.uri, "https://example.test/"],
        ["https://example.test/"],
        ["spiffe://test.factory/tenant/acme/service/alice/more"],
        ["spiffe://test.factory/"],
    ],
)
async def test_a_signed_certificate_without_exactly_one_identity_is_refused(world: World, uris: list[str]) -> None:
    certificate, key = sign(world, uris)
    credentials = grpc.ssl_channel_credentials(world.authority.certificate, key, certificate)
    async with world.serving() as server:
        error = from_rpc_error(await refusal(f"127.0.0.1:{server.port}", credentials))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, Reason.INVALID_IDENTITY)
        assert world.echo.parsed == 0


def tls_1_2_tunnel(world: World) -> ssl.SSLContext:
    files = world.files(ALICE)
    context = ssl.create_default_context(cafile=str(files.authorities))
    context.load_cert_chain(files.certificate, files.key)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    return context


async def test_tls_1_2_is_refused_by_the_guard_since_grpc_lets_it_in(world: World) -> None:
    """A raw HTTP/2 client over TLS 1.2: settings, then one call's headers; trailers carry our reason."""
    async with world.serving() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=tls_1_2_tunnel(world))
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.2"
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(0x4, 0, 0, b""))
        headers = (
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":path", b"/test.Echo/Unary"),
            (b":authority", b"127.0.0.1"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        )
        block = b"".join(b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in headers)
        writer.write(frame(0x1, 0x4, 1, block) + frame(0x0, 0x1, 1, b"\x00\x00\x00\x00\x02\x0a\x00"))
        received = b""
        async with asyncio.timeout(10):
            while b"grpc-status-details-bin" not in received and (chunk := await reader.read(65536)):
                received += chunk
        writer.close()
        assert b"grpc-status" in received
        assert world.echo.parsed == 0
    counted = world.telemetry.prometheus_text().decode()  # the server has ended, so that everything is counted
    assert 'agentfactory_rpc_server_calls_total{code="UNAUTHENTICATED",method="/test.Echo/Unary"} 1.0' in counted


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


async def test_a_service_cannot_pose_as_a_server(world: World) -> None:
    """Its certificate is genuine and could even carry the right name: it lacks the purpose."""
    server = build_server(
        host="127.0.0.1",
        port=0,
        credentials=server_credentials(world.files(ALICE)),
        guard=ServerGuard(trust_domain=TRUST_DOMAIN, authorise=world.authorise, telemetry=world.telemetry),
        register=world.echo.register,
        service_names=[],
    )
    async with server:
        error = await refusal(f"127.0.0.1:{server.port}", channel_credentials(world.files(NODE)))
        assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_server_under_another_name_is_refused(world: World) -> None:
    issued = world.authority.issue(NODE, now=datetime.now(UTC), dns_names=["elsewhere.test"])
    async with world.serving(node=issued.write(world.directory / "elsewhere")) as server:
        error = await refusal(f"127.0.0.1:{server.port}", channel_credentials(world.files(ALICE)))
        assert error.code() is grpc.StatusCode.UNAVAILABLE


def test_the_certificate_of_files_can_be_looked_at(world: World) -> None:
    files = world.files(ALICE)
    assert certificate_of(files).not_valid_after_utc > datetime.now(UTC)


def damaged(files: TlsFiles, what: str, world: World) -> TlsFiles:
    match what:
        case "no certificate":
            files.certificate.unlink()
        case "no key":
            files.key.unlink()
        case "no authorities":
            files.authorities.unlink()
        case "certificate is text":
            files.certificate.write_text("hello")
        case "authorities are text":
            files.authorities.write_text("hello")
        case "key is text":
            files.key.write_text("hello")
        case "another's key":
            files.key.write_bytes(world.files(NODE).key.read_bytes())
        case "key is open":
            files.key.chmod(0o640)
    return files


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("no certificate", Reason.INVALID_TLS_FILES),
        ("no key", Reason.INVALID_TLS_FILES),
        ("no authorities", Reason.INVALID_TLS_FILES),
        ("certificate is text", Reason.INVALID_TLS_FILES),
        ("authorities are text", Reason.INVALID_TLS_FILES),
        ("key is text", Reason.INVALID_TLS_FILES),
        ("another's key", Reason.INVALID_TLS_FILES),
        ("key is open", Reason.EXPOSED_KEY_FILE),
    ],
)
def test_damaged_files_are_named(world: World, what: str, reason: Reason) -> None:
    files = damaged(world.files(ALICE), what, world)
    for make in (server_credentials, channel_credentials):
        with pytest.raises(AgentFactoryError) as caught:
            make(files)
        assert caught.value.reason is reason
        assert str(world.directory) in str(caught.value)


def test_an_encrypted_tls_key_is_refused(world: World) -> None:
    from service.pkcs8 import encrypt_pkcs8

    files = world.files(ALICE)
    key = load_pem_private_key(files.key.read_bytes(), None)
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    files.key.write_bytes(encrypt_pkcs8(der, passphrase=b"x"))
    with pytest.raises(TlsFilesError, match="unencrypted"):
        channel_credentials(files)


def test_identities_of_a_person_and_a_control_plane_can_be_issued_too(world: World) -> None:
    for identity in (Identity.person(TRUST_DOMAIN, "bob"), Identity.control_plane(TRUST_DOMAIN, "main")):
        channel_credentials(world.files(identity))
