"""HTTP/1.1 requests of the broker: one connection per request, bounded in every direction, no redirects, no proxies.

    async with egress.request(origin, "GET", "/works", headers, limits=limits, deadline=monotonic) as response:
        response.status, response.headers
        async for piece in response.pieces():   # or: body = await response.read()

h11 parses, strictly where it matters; what it accepts and two parsers could still read differently is refused here
besides: two framings at once, and a transfer coding in HTTP/1.0. Bytes after the end of a response are never read.
Whoever calls decides what a guest may ask (`data_plane.broker.http_grant`); this module decides nothing but limits.

Connections are not kept: one that served one tenant's secret never carries another's request, and a response can only
answer the request before it (ADR 12 has the cost).
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum, unique
from typing import Final

import h11

from data_plane.broker.answers import ErrorKind, HostRefusal
from data_plane.broker.origin import Origin
from data_plane.egress_connect import Connector

READ_BYTES: Final = 16_384
INFORMATIONAL_MAX: Final = 8
CHUNKS_FREE: Final = 2_000
CHUNK_BYTES_MIN: Final = 32
Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressLimits:
    """Of one request. ``body_bytes_max`` counts decoded bytes; what crosses the wire is bounded by it as well.

    ``sent_bytes_max`` is of the request as it is sent, None for whatever its caller made. Every time ends with the
    deadline at the latest. ``connect_s`` covers name, connection and TLS; ``first_byte_s`` the time from then to the
    response's head; ``piece_s`` each silence after that; ``total_s`` everything.
    """

    header_bytes_max: int = 32_768
    headers_max: int = 100
    body_bytes_max: int = 1_048_576
    sent_bytes_max: int | None = None
    connect_s: float = 5.0
    first_byte_s: float = 30.0
    piece_s: float = 15.0
    total_s: float = 60.0

    def with_body(self, body_bytes_max: int, *, sent_bytes_max: int | None = None) -> "EgressLimits":
        """Return these limits with others for the body and for what is sent."""
        return replace(self, body_bytes_max=body_bytes_max, sent_bytes_max=sent_bytes_max)


@unique
class _Phase(StrEnum):
    """What there was no time for, as the guest is told."""

    CONNECT = "to connect"
    FIRST_BYTE = "for the head of the response"
    BODY = "for the body of the response"


@dataclass(slots=True, kw_only=True)
class Traffic:
    """Bytes of HTTP, TLS not counted."""

    sent: int = 0
    received: int = 0


@dataclass(slots=True, kw_only=True)
class Response:
    """``headers`` have lower-case names, in the order in which they came."""

    status: int
    headers: Headers
    traffic: Traffic
    _exchange: "_Exchange" = field(repr=False)

    def pieces(self) -> AsyncIterator[bytes]:
        """Yield the decoded body as it arrives; raise `HostRefusal` (failed, quota, budget)."""
        return self._exchange.body()

    async def read(self) -> bytes:
        """Return the whole decoded body."""
        return b"".join([piece async for piece in self.pieces()])


class HttpEgress:
    """Makes requests. Safe to share: it holds nothing of one request."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector

    @asynccontextmanager
    async def request(
        self,
        origin: Origin,
        method: str,
        target: str,
        headers: Headers = (),
        body: bytes = b"",
        *,
        limits: EgressLimits,
        deadline: float,
        traffic: Traffic | None = None,
    ) -> AsyncIterator[Response]:
        """Send one request; the connection closes with the context.

        Args:
            origin: where to.
            method: a method with ordinary framing (not CONNECT).
            target: path and query in ASCII, percent-encoded.
            headers: without Host, Content-Length, Connection and Accept-Encoding, which are set here.
            body: the whole body.
            limits: of this request.
            deadline: of the event loop's clock (`time.monotonic`), in seconds; the invocation's own.
            traffic: is counted up while the request runs; pass one to know the amounts of a request that failed.

        Raises:
            HostRefusal: ``denied``: the destination; ``invalid``: headers or target that are no HTTP; ``quota``: beyond
                a limit of size; ``budget``: out of time; ``failed``: everything that the other side did.
        """
        loop = asyncio.get_running_loop()
        end = min(deadline, loop.time() + limits.total_s)
        async with _within(_Phase.CONNECT, min(end, loop.time() + limits.connect_s)):
            reader, writer = await self._connector.open(origin)
        exchange = _Exchange(reader, limits=limits, end=end, traffic=traffic or Traffic(), is_head=method == "HEAD")
        try:
            sent = exchange.encode(origin, method, target, headers, body)
            async with _within(_Phase.FIRST_BYTE, min(end, loop.time() + limits.first_byte_s)):
                response = await exchange.send(writer, sent)
            yield response
        finally:
            writer.transport.abort()


class _Exchange:
    """One request and its response on one connection."""

    def __init__(
        self, reader: asyncio.StreamReader, *, limits: EgressLimits, end: float, traffic: Traffic, is_head: bool
    ) -> None:
        self._reader = reader
        self._limits = limits
        self._end = end
        self._traffic = traffic
        self._is_head = is_head
        self._head_bytes = 0
        self._body_bytes = 0
        self._chunks = 0
        self._wire = h11.Connection(h11.CLIENT, max_incomplete_event_size=limits.header_bytes_max + READ_BYTES)
        self._decoder: _Decoder | None = None

    def encode(self, origin: Origin, method: str, target: str, headers: Headers, body: bytes) -> bytes:
        """Return the bytes of the request; h11 refuses names, values and targets that would not be read back alike."""
        fields = [("Host", origin.authority), *headers, ("Accept-Encoding", "gzip"), ("Connection", "close")]
        if body or method in {"POST", "PUT", "PATCH"}:
            fields.append(("Content-Length", str(len(body))))
        try:
            request = h11.Request(method=method, target=target, headers=fields)
            pieces = [self._wire.send(request)]
            if body:
                pieces.append(self._wire.send(h11.Data(data=body)))
            pieces.append(self._wire.send(h11.EndOfMessage()))
        except (h11.LocalProtocolError, UnicodeError):
            raise HostRefusal(ErrorKind.INVALID, "expected a request that is HTTP/1.1, got one that is not") from None
        made, most = b"".join(piece for piece in pieces if piece), self._limits.sent_bytes_max
        if most is not None and len(made) > most:
            raise HostRefusal(ErrorKind.BUDGET, f"expected a request within {most} bytes, got {len(made)} in all")
        return made

    async def send(self, writer: asyncio.StreamWriter, request: bytes) -> Response:
        """Send the request and return the head of the response."""
        self._traffic.sent += len(request)
        try:
            writer.write(request)
            await writer.drain()
        except OSError:
            raise _failed("the server closed the connection") from None
        head = await self._head()
        headers = [(name.decode("ascii"), value.decode("latin-1")) for name, value in head.headers]
        self._require_small(headers)
        self._require_framing(head, headers)
        self._decoder = None if self._is_head else _decoder(headers, self._limits.body_bytes_max)
        return Response(status=head.status_code, headers=headers, traffic=self._traffic, _exchange=self)

    async def _head(self) -> h11.Response:
        informational = 0
        while True:
            event = await self._event()
            if isinstance(event, h11.Response):
                return event
            informational += 1
            if not isinstance(event, h11.InformationalResponse) or informational > INFORMATIONAL_MAX:
                raise _failed("expected the head of a response")

    def _require_framing(self, head: h11.Response, headers: Headers) -> None:
        """Refuse a head that another parser on the way could frame differently (RFC 9112, section 6.3)."""
        names = {name for name, _ in headers}
        if "transfer-encoding" in names and ("content-length" in names or head.http_version != b"1.1"):
            raise _failed("expected one framing of the response")

    def _require_small(self, headers: Headers) -> None:
        if len(headers) > self._limits.headers_max:
            raise HostRefusal(ErrorKind.QUOTA, f"expected at most {self._limits.headers_max} headers")
        if sum(len(name) + len(value) + 4 for name, value in headers) > self._limits.header_bytes_max:
            raise _head_too_long(self._limits.header_bytes_max)

    async def body(self) -> AsyncIterator[bytes]:
        decoder, at_end = self._decoder, False
        while not at_end:
            encoded, at_end = self._encoded()
            if encoded and (piece := encoded if decoder is None else decoder.decode(encoded)):
                yield piece
            if not at_end:
                async with _within(
                    _Phase.BODY, min(self._end, asyncio.get_running_loop().time() + self._limits.piece_s)
                ):
                    await self._read()
                    await asyncio.sleep(0)  # a read of what is there already does not let others have the loop
        if decoder is not None:
            decoder.finish()

    def _encoded(self) -> tuple[bytes, bool]:
        """Return all of the body that has been read and not yet returned, and whether that was its end."""
        pieces: list[bytes] = []
        while True:
            event = self._next()
            if isinstance(event, h11.Data):
                pieces.append(bytes(event.data))
                self._count_body(len(event.data))
            elif isinstance(event, h11.EndOfMessage) or event is h11.NEED_DATA:
                return b"".join(pieces), event is not h11.NEED_DATA
            else:
                raise _failed("expected the body of the response")

    def _count_body(self, length: int) -> None:
        """Bound the body, and in how many chunks it comes: each costs as much time as a kilobyte."""
        self._chunks += 1
        self._body_bytes += length
        if self._body_bytes > self._limits.body_bytes_max:
            raise _too_long(self._limits.body_bytes_max)
        if self._chunks > CHUNKS_FREE + self._body_bytes // CHUNK_BYTES_MIN:
            raise HostRefusal(ErrorKind.QUOTA, f"expected chunks of at least {CHUNK_BYTES_MIN} bytes on average")

    async def _event(self) -> object:
        """Return the next event of h11, reading as much as it needs."""
        while (event := self._next()) is h11.NEED_DATA:
            await self._read()
        return event

    def _next(self) -> object:
        try:
            return self._wire.next_event()
        except h11.RemoteProtocolError:
            raise _failed("expected HTTP/1.1 from the server, got something else or not all of it") from None

    async def _read(self) -> None:
        try:
            data = await self._reader.read(READ_BYTES)
        except OSError:
            raise _failed("the server broke the connection") from None
        self._traffic.received += len(data)
        if self._wire.their_state is not h11.SEND_BODY:
            self._count_head(data)
        # What stands around chunks counts here: twice the body and a little is what an honest server needs.
        elif self._traffic.received > 2 * self._limits.body_bytes_max + 2 * self._limits.header_bytes_max + READ_BYTES:
            raise _too_long(self._limits.body_bytes_max)
        self._wire.receive_data(data)

    def _count_head(self, data: bytes) -> None:
        """Bound the head, which may share its last piece with the start of the body."""
        self._head_bytes += len(data)
        if self._head_bytes > self._limits.header_bytes_max + READ_BYTES:
            raise _head_too_long(self._limits.header_bytes_max)


class _Decoder:
    """Decodes gzip and deflate (the zlib format), never into more than the limit at once or in all."""

    def __init__(self, wbits: int, bytes_max: int) -> None:
        self._wbits = wbits
        self._bytes_max = bytes_max
        self._left = bytes_max
        self._stream = zlib.decompressobj(wbits)
        self._started = False

    def decode(self, data: bytes) -> bytes:
        """Return what ``data`` decodes to.

        Raises:
            HostRefusal: ``quota`` beyond the limit, ``failed`` for data that is not in the format.
        """
        decoded = []
        while data:
            if self._stream.eof:  # gzip allows several members, one after the other (RFC 1952, section 2.2)
                self._stream = zlib.decompressobj(self._wbits)
            try:
                piece = self._stream.decompress(data, self._left + 1)
            except zlib.error:
                raise _failed("expected a body in the encoding that its header names") from None
            self._started = True
            self._left -= len(piece)
            if self._left < 0:
                raise _too_long(self._bytes_max)
            decoded.append(piece)
            data = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
        return b"".join(decoded)

    def finish(self) -> None:
        """Raise `HostRefusal` (failed) unless the data ended where the format says."""
        if self._started and not self._stream.eof:
            raise _failed("expected all of an encoded body, got a part")


def _decoder(headers: Headers, bytes_max: int) -> _Decoder | None:
    """Return what decodes the body, None for one that is not encoded."""
    encodings = [
        each.strip().lower() for name, value in headers if name == "content-encoding" for each in value.split(",")
    ]
    match [each for each in encodings if each not in {"", "identity"}]:
        case []:
            return None
        case ["gzip" | "x-gzip"]:
            return _Decoder(zlib.MAX_WBITS | 16, bytes_max)
        case ["deflate"]:
            return _Decoder(zlib.MAX_WBITS, bytes_max)
    raise _failed("expected a body in gzip or without encoding")


@asynccontextmanager
async def _within(phase: _Phase, end: float) -> AsyncIterator[None]:
    """Bound a phase; a cancellation from outside stays one."""
    try:
        async with asyncio.timeout_at(end):
            yield
    except TimeoutError:
        raise HostRefusal(ErrorKind.BUDGET, f"there was no time left {phase}") from None


def _failed(message: str) -> HostRefusal:
    return HostRefusal(ErrorKind.FAILED, message)


def _too_long(bytes_max: int) -> HostRefusal:
    return HostRefusal(ErrorKind.QUOTA, f"expected a body of at most {bytes_max} bytes")


def _head_too_long(bytes_max: int) -> HostRefusal:
    return HostRefusal(ErrorKind.QUOTA, f"expected at most {bytes_max} bytes of headers")
