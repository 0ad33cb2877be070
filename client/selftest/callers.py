"""Callers that should not be let in: certificates of every wrong kind, protocols that are too old, replays."""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Final, Self

import grpc
import grpc.aio
from agentfactory.agent.v1 import agent_pb2
from agentfactory.agent.v1.agent_pb2_grpc import AgentServiceStub
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from client.selftest.stage import Stage
from service.client_interceptors import RetryPolicy, intercept_aio_channel
from service.local_ca import LocalCa
from service.status import RemoteError
from service.tls import TlsFiles

_TIMEOUT_S: Final = 3.0
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS, _HEADERS, _DATA, _END_HEADERS, _END_STREAM = 0x4, 0x1, 0x0, 0x4, 0x1


async def is_let_in(stage: Stage, credentials: grpc.ChannelCredentials) -> bool:
    """Whether anything at all is answered over a channel with these credentials."""
    async with grpc.aio.secure_channel(stage.node.address, credentials) as channel:
        try:
            answer = await AgentServiceStub(channel).ListTemplates(agent_pb2.ListTemplatesRequest(), timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            stage.note(str(error.details()))
            return error.code() not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
        stage.note(answer.SerializeToString())
        return True


async def reason_for(stage: Stage, credentials: grpc.ChannelCredentials) -> str:
    """Return the reason of the refusal of a service's call; empty when it is answered."""
    async with grpc.aio.secure_channel(stage.node.address, credentials) as raw:
        stub = AgentServiceStub(intercept_aio_channel(raw, RetryPolicy()))
        try:
            answer = await stub.ListTemplates(agent_pb2.ListTemplatesRequest(), timeout=_TIMEOUT_S)
        except RemoteError as error:
            stage.note(error.message)
            return error.reason_text or str(error.reason)
        stage.note(answer.SerializeToString())
        return ""


def forged_certificate(authority: LocalCa, uris: Sequence[str]) -> tuple[bytes, bytes]:
    """Return key and certificate (PEM) with these URI names, signed by ``authority``, which itself signs none such."""
    now = datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "forged")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(x509.load_pem_x509_certificate(authority.certificate).subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(minutes=30))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris]), critical=False
        )
        .sign(authority._key, SHA256())  # noqa: SLF001 - the authority refuses to sign what this attack needs
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, certificate.public_bytes(Encoding.PEM)


def call_over_tls_1_2(port: int, method: str, files: TlsFiles, *, timeout_s: float = _TIMEOUT_S) -> tuple[str, bytes]:
    """Send one call with an empty message over TLS 1.2; return the version and everything that came back.

    By hand (RFC 9113): grpc's own client cannot be made to offer it.
    """
    context = ssl.create_default_context(cafile=str(files.authorities))
    context.load_cert_chain(files.certificate, files.key)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    headers = (
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":path", method.encode()),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    )
    block = b"".join(b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in headers)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tunnel,
    ):
        tunnel.sendall(
            _PREFACE
            + _frame(_SETTINGS, 0, 0, b"")
            + _frame(_HEADERS, _END_HEADERS, 1, block)
            + _frame(_DATA, _END_STREAM, 1, bytes(5))
        )
        received = b""
        while b"grpc-status" not in received and (chunk := tunnel.recv(65_536)):
            received += chunk
        return tunnel.version() or "", received


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def with_key_of(owner: TlsFiles, thief: TlsFiles) -> bytes:
    """Return the certificate of ``owner`` (PEM) with the public key of ``thief`` in it, its signature left as it is.

    Somebody else's certificate alone cannot be shown: every TLS library refuses a key that is not the certificate's.
    """
    found = [x509.load_pem_x509_certificate(each.certificate.read_bytes()) for each in (owner, thief)]
    stolen, other = (each.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for each in found)
    return ssl.DER_cert_to_PEM_cert(found[0].public_bytes(Encoding.DER).replace(stolen, other)).encode()


@dataclass(slots=True)
class Recorder:
    """Stands between a caller and the node on ``port``; keeps what each connection sent, encrypted as it is."""

    port: int
    address: str = ""
    connections: list[bytearray] = field(default_factory=list)
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.address = f"localhost:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = bytearray()
        self.connections.append(sent)
        back, forth = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, forth, sent))
                group.create_task(_copy(back, writer, None))
        finally:
            forth.close()
            writer.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, kept: bytearray | None) -> None:
    try:
        while piece := await source.read(65_536):
            if kept is not None:
                kept += piece
            target.write(piece)
            await target.drain()
        target.write_eof()
    except OSError:
        target.close()


def replayed(port: int, sent: bytes) -> bytes:
    """Send what somebody else sent; return what comes back."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S) as plain:
        try:
            plain.sendall(sent)
            plain.shutdown(socket.SHUT_WR)
            while chunk := plain.recv(65_536):
                received += chunk
        except OSError:
            return received
    return received
