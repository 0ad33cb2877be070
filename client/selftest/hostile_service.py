"""A service on loopback that the throw-away node's operator allowed, and that answers with attacks.

It is told what to do by the path: ``/bound`` is where a secret is sent, ``/free`` anything else. What it received is
kept, so that an attack on secrets can show that there was one.
"""

import asyncio
import base64
import gzip
import urllib.parse
import zlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

HOST: Final = "127.0.0.1"
PLACEHOLDER: Final = "http://hostile-service.selftest"
"""Stands in guests' grants where the origin of the service will stand: its port is not known before."""
SECRET: Final = "selftest-token"  # noqa: S105 - its name
HEADER: Final = "Authorization"
_HEAD_BYTES_MAX: Final = 65_536
_FLOOD_BYTES: Final = 64 << 20
_PIECE: Final = b"x" * 65_536


@dataclass(frozen=True, slots=True)
class Received:
    """The head of one request."""

    method: str
    target: str
    headers: Mapping[str, str]


@dataclass(slots=True)
class HostileService:
    """``received`` grows with every request."""

    port: int = 0
    received: list[Received] = field(default_factory=list)
    _server: asyncio.Server | None = None

    @property
    def origin(self) -> str:
        return f"{PLACEHOLDER}:{self.port}"

    @property
    def proxy_variables(self) -> dict[str, str]:
        """Return an environment that names the service as the proxy of everything."""
        names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        return dict.fromkeys(names, f"http://{HOST}:{self.port}")

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, 0, limit=_HEAD_BYTES_MAX)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, _ = head[0].split(" ", 2)
            fields = (line.partition(":") for line in head[1:] if line)
            request = Received(method, target, {name.lower(): value.strip() for name, _, value in fields})
            self.received.append(request)
            behaviour = urllib.parse.urlsplit(target).path.rpartition("/")[2]
            await _BEHAVIOURS.get(behaviour, _plain)(request, writer)
            await writer.drain()
        writer.close()


def _answer(body: bytes, *fields: str, status: str = "200 OK") -> bytes:
    head = "\r\n".join((f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *fields))
    return head.encode("latin-1") + b"\r\n\r\n" + body


def _secret_of(request: Received) -> bytes:
    return request.headers.get(HEADER.lower(), "none").encode()


async def _plain(_request: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(_answer(b"plain"))


async def _echo(request: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(_answer(b"you sent " + _secret_of(request) + b" and nothing else"))


async def _echo_encoded(request: Received, writer: asyncio.StreamWriter) -> None:
    secret = _secret_of(request)
    credential = secret.rpartition(b" ")[2]
    forms = [secret.hex().encode(), secret[::-1], urllib.parse.quote_from_bytes(secret).encode()]
    forms += [base64.b64encode(b"x" * shift + each) for each in (secret, credential) for shift in range(3)]
    forms += [base64.urlsafe_b64encode(credential), base64.b32encode(credential), credential.hex().upper().encode()]
    writer.write(_answer(b"\n".join(forms)))


async def _echo_gzip(request: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(_answer(gzip.compress(_secret_of(request)), "Content-Encoding: gzip"))


async def _echo_deflate(request: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(_answer(zlib.compress(_secret_of(request)), "Content-Encoding: deflate"))


async def _echo_headers(request: Received, writer: asyncio.StreamWriter) -> None:
    secret = _secret_of(request).decode("latin-1")
    writer.write(_answer(b"see above", f"X-Echo: {secret}", f"X-Hex: {secret.encode().hex()}", f"Location: /?{secret}"))


async def _redirect(_request: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(_answer(b"", "Location: http://169.254.169.254/latest/meta-data/", status="302 Found"))


async def _redirect_here(_request: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(_answer(b"", "Location: /bound/echo", status="307 Temporary Redirect"))


async def _endless(_request: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    for _ in range(_FLOOD_BYTES // len(_PIECE)):
        writer.write(_PIECE)
        await writer.drain()


async def _slow(_request: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(100):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.2)


async def _silent(_request: Received, writer: asyncio.StreamWriter) -> None:
    """Says nothing for longer than any attack waits, and knows when nobody waits any more."""
    for _ in range(100):
        if writer.is_closing():
            return
        await asyncio.sleep(0.2)


async def _bomb(_request: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(_answer(await asyncio.to_thread(gzip.compress, bytes(_FLOOD_BYTES)), "Content-Encoding: gzip"))


async def _bomb_in_bomb(_request: Received, writer: asyncio.StreamWriter) -> None:
    once = await asyncio.to_thread(gzip.compress, bytes(_FLOOD_BYTES))
    writer.write(_answer(gzip.compress(once), "Content-Encoding: gzip, gzip"))


async def _huge_head(_request: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(50_000):
        writer.write(f"X-{number}: {'y' * 100}\r\n".encode())
        await writer.drain()


async def _two_lengths(_request: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nfirst")


async def _chunked_and_length(_request: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 18 + b"\r\nx")


async def _not_http(_request: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x00\xff\x16\x03\x01 SSH-2.0 \x1b[2J\r\n\r\n")


_BEHAVIOURS: Final[Mapping[str, Callable[[Received, asyncio.StreamWriter], Awaitable[None]]]] = {
    "echo": _echo,
    "echo-encoded": _echo_encoded,
    "echo-gzip": _echo_gzip,
    "echo-deflate": _echo_deflate,
    "echo-headers": _echo_headers,
    "redirect": _redirect,
    "redirect-here": _redirect_here,
    "endless": _endless,
    "silent": _silent,
    "slow": _slow,
    "bomb": _bomb,
    "bomb-in-bomb": _bomb_in_bomb,
    "huge-head": _huge_head,
    "two-lengths": _two_lengths,
    "chunked-and-length": _chunked_and_length,
    "not-http": _not_http,
}
