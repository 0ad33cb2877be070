"""A loopback HTTP server that answers with whatever bytes a test wants, however wrong they are."""

import asyncio
import queue
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from service.identity import Identity, IdentityKind
from service.local_ca import LocalCa

HOST = "api.example.test"
"""A name that no resolver knows."""

TRUST_DOMAIN = "servers.example"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One request as the server read it; ``headers`` have lower-case names."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    raw: bytes


Handler = Callable[[Seen, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True, kw_only=True)
class HttpServer:
    """``seen`` grows with every request; ``connections`` with every connection, whether or not anything came."""

    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    scheme: str = "http"
    host: str = HOST

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """An authority of the test's own, and a server certificate from it."""

    ca_file: Path
    context: ssl.SSLContext


def server_tls(directory: Path, *names: str) -> ServerTls:
    """Issue a certificate for ``names`` (default: `HOST`)."""
    now = datetime.now(UTC)
    authority = LocalCa.create(directory / "authority", trust_domain=TRUST_DOMAIN, now=now)
    identity = Identity(kind=IdentityKind.NODE, trust_domain=TRUST_DOMAIN, name="server")
    issued = authority.issue(identity, now=now, dns_names=names or (HOST,))
    files = issued.write(directory / "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    context.set_alpn_protocols(["http/1.1"])
    return ServerTls(ca_file=directory / "authority" / "ca.pem", context=context)


def answers(*responses: bytes) -> Handler:
    """Answer requests with these bytes, one after the other; the last ones stay."""
    left = list(responses)

    async def handle(_seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        await writer.drain()

    return handle


def ok(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """Return a response that is in order."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _read(reader: asyncio.StreamReader) -> Seen:
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *lines = raw.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Seen(method=method, target=target, headers=headers, body=body, raw=raw + body)


@asynccontextmanager
async def http_server(
    handler: Handler, *, tls: ServerTls | None = None, host: str = HOST, address: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[HttpServer]:
    """Serve one request per connection, and close it."""
    server = HttpServer(scheme="http" if tls is None else "https", host=host)
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        if (task := asyncio.current_task()) is not None:
            serving.add(task)
        try:
            seen = await _read(reader)
            server.seen.append(seen)
            await handler(seen, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, address, port, ssl=None if tls is None else tls.context)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the loop's next turn


@contextmanager
def threaded_http_server(handler: Handler, *, tls: ServerTls | None = None, host: str = HOST) -> Iterator[HttpServer]:
    """`http_server` in a thread of its own, for tests that block."""
    started: queue.Queue[tuple[HttpServer, asyncio.AbstractEventLoop, asyncio.Event]] = queue.Queue()

    async def serve() -> None:
        stop = asyncio.Event()
        async with http_server(handler, tls=tls, host=host) as server:
            started.put((server, asyncio.get_running_loop(), stop))
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    server, loop, stop = started.get(timeout=10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
