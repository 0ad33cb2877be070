"""A client that speaks HTTP/2 over TLS 1.2 by hand: grpc's own cannot be made to, and its servers let it in."""

import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any

from service.tls import TlsFiles

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS, _HEADERS, _DATA, _END_HEADERS, _END_STREAM = 0x4, 0x1, 0x0, 0x4, 0x1


def call_over_tls_1_2(port: int, method: str, files: TlsFiles, *, timeout_s: float = 10.0) -> tuple[str, bytes]:
    """Send one call with an empty message; return the negotiated version and everything that came back."""
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
        while b"grpc-status-details-bin" not in received and (chunk := tunnel.recv(65_536)):
            received += chunk
        return tunnel.version() or "", received


def logged(lines: Sequence[dict[str, Any]], *, reason: str, timeout_s: float = 10.0) -> dict[str, Any]:
    """Wait for the server's line about that call: it is written after the answer."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        for line in list(lines):
            if line.get("reason") == reason:
                return line
        time.sleep(0.02)
    raise RuntimeError(f"expected a line with the reason {reason}, got {lines[-5:]}")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload
