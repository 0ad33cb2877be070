"""A small HTTP/1.1 responder on loopback: /healthz, /readyz, /metrics. No dependency; every read is bounded.

One request per connection (RFC 9112, section 9.6 allows the server to close). It reads a request line and headers and
ignores bodies, so there is nothing to smuggle.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique
from http import HTTPStatus
from types import TracebackType
from typing import Final, NamedTuple, Self

from service.logs import get_logger
from service.telemetry import Field

REQUEST_BYTES_MAX: Final = 8192
REQUEST_TIMEOUT_S: Final = 5.0
CONNECTIONS_MAX: Final = 64


@unique
class Event(StrEnum):
    """What this module logs."""

    OBSERVATION_FAILED = "observation_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether to send traffic here, and the facts behind that, shown by /readyz as JSON."""

    ready: bool
    facts: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)


class _Answer(NamedTuple):
    status: HTTPStatus
    content: bytes = b""
    content_type: str = "text/plain; charset=utf-8"


class _RefusedError(Exception):
    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class ObservationServer:
    """``async with ObservationServer(...) as observed``: listens until left.

    /healthz answers 200 as long as the loop turns; /readyz 200 or 503 with facts; /metrics Prometheus text.
    """

    def __init__(
        self, *, host: str, port: int, readiness: Callable[[], Readiness], metrics: Callable[[], bytes]
    ) -> None:
        self._address = (host, port)
        self._readiness = readiness
        self._metrics = metrics
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._log = get_logger("observation")

    @property
    def port(self) -> int:
        """The bound port: what port 0 became. Only while it listens."""
        if self._server is None:
            raise RuntimeError("expected a server that listens, got one that was not started")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self) -> None:
        """Bind and listen.

        Raises:
            OSError: the address is taken or not ours.
        """
        host, port = self._address
        self._server = await asyncio.start_server(self._connected, host, port, limit=REQUEST_BYTES_MAX)

    async def close(self) -> None:
        """Stop listening and drop what is open. Idempotent."""
        if self._server is None:
            return
        self._server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= CONNECTIONS_MAX:
            writer.close()
            return
        self._connections.add(task)
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                head, answer = await self._answer(reader)
                writer.write(_encoded(answer, with_content=not head))
                await writer.drain()
        except (TimeoutError, ConnectionError):
            pass  # a slow or vanished observer is its own problem
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[bool, _Answer]:
        method = ""
        try:
            method, path = await _read_request(reader)
            answer = await self._route(method, path)
        except _RefusedError as refusal:
            answer = _Answer(refusal.status, refusal.status.phrase.encode() + b"\n")
        except Exception as error:  # noqa: BLE001 -- the guard of this edge: an observer never sees a traceback
            self._log.error(Event.OBSERVATION_FAILED, **{Field.ERROR: type(error).__name__}, exc_info=error)
            answer = _Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"Internal Server Error\n")
        return method == "HEAD", answer

    async def _route(self, method: str, path: str) -> _Answer:
        if method not in {"GET", "HEAD"}:
            raise _RefusedError(HTTPStatus.METHOD_NOT_ALLOWED)
        match path:
            case "/healthz":
                return _Answer(HTTPStatus.OK, b"ok\n")
            case "/readyz":
                readiness = self._readiness()
                content = json.dumps({"ready": readiness.ready, **readiness.facts}, sort_keys=True).encode() + b"\n"
                status = HTTPStatus.OK if readiness.ready else HTTPStatus.SERVICE_UNAVAILABLE
                return _Answer(status, content, "application/json")
            case "/metrics":
                # Thousands of series take tens of milliseconds, for which calls would wait.
                text = await asyncio.to_thread(self._metrics)
                return _Answer(HTTPStatus.OK, text, "text/plain; version=0.0.4; charset=utf-8")
            case _:
                raise _RefusedError(HTTPStatus.NOT_FOUND)


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, str]:
    try:
        request = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise _RefusedError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE) from error
    except asyncio.IncompleteReadError as error:
        raise _RefusedError(HTTPStatus.BAD_REQUEST) from error
    parts = request.partition(b"\r\n")[0].split(b" ")
    if len(parts) != 3 or not parts[2].startswith(b"HTTP/1.") or not all(part.isascii() for part in parts):
        raise _RefusedError(HTTPStatus.BAD_REQUEST)
    return parts[0].decode("ascii"), parts[1].decode("ascii").partition("?")[0]


def _encoded(answer: _Answer, *, with_content: bool) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.content)}\r\n"
        "Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("ascii") + (answer.content if with_content else b"")
