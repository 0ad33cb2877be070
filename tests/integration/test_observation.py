"""The loopback observer over real sockets: what it answers, and what it does not put up with."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from service import observation
from service.observation import ObservationServer, Readiness
from service.telemetry import SUBSCRIBERS, Telemetry


class Observed:
    def __init__(self) -> None:
        self.readiness = Readiness(ready=False, facts={"generation": None})
        self.telemetry = Telemetry()
        self.broken = False

    def metrics(self) -> bytes:
        if self.broken:
            raise ValueError("hunter2")
        return self.telemetry.prometheus_text()


@pytest.fixture
def observed() -> Observed:
    return Observed()


@pytest.fixture
async def server(observed: Observed) -> AsyncIterator[ObservationServer]:
    async with ObservationServer(
        host="127.0.0.1", port=0, readiness=lambda: observed.readiness, metrics=observed.metrics
    ) as server:
        yield server


async def exchange(server: ObservationServer, request: bytes, *, finish: bool = False) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request)
    if finish:
        writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    if not answer:
        return 0, b""
    head, _, content = answer.partition(b"\r\n\r\n")
    assert b"Connection: close" in head
    assert b"nosniff" in head
    return int(head.split(b" ")[1]), content


async def connected(server: ObservationServer) -> None:
    """Wait until the server has noticed somebody: connecting does not wait for that."""
    async with asyncio.timeout(10):
        while not server._connections:  # noqa: ASYNC110 -- it has no event to offer, and needs none
            await asyncio.sleep(0.001)


async def get(server: ObservationServer, path: str, method: str = "GET") -> tuple[int, bytes]:
    return await exchange(server, f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())


async def test_health_readiness_and_metrics(server: ObservationServer, observed: Observed) -> None:
    assert await get(server, "/healthz") == (200, b"ok\n")
    status, content = await get(server, "/readyz")
    assert (status, json.loads(content)) == (503, {"ready": False, "generation": None})
    observed.readiness = Readiness(ready=True, facts={"generation": 7})
    status, content = await get(server, "/readyz?verbose=1")
    assert (status, json.loads(content)) == (200, {"ready": True, "generation": 7})
    observed.telemetry.gauge(SUBSCRIBERS, 3)
    status, content = await get(server, "/metrics")
    assert status == 200
    assert b"agentfactory_subscribers 3.0" in content


async def test_head_has_no_content(server: ObservationServer) -> None:
    assert await get(server, "/healthz", "HEAD") == (200, b"")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /other HTTP/1.1\r\n\r\n", 404),
        (b"GET /healthz/ HTTP/1.1\r\n\r\n", 404),
        (b"GET /../healthz HTTP/1.1\r\n\r\n", 404),
        (b"POST /healthz HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 405),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", 405),
        (b"hello\r\n\r\n", 400),
        (b"GET /healthz\r\n\r\n", 400),
        (b"GET /healthz HTTP/2.0\r\n\r\n", 400),
        (b"GET  /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431),
    ],
)
async def test_what_is_not_a_request_for_us_is_refused(
    server: ObservationServer, request_bytes: bytes, status: int
) -> None:
    assert (await exchange(server, request_bytes))[0] == status
    assert (await get(server, "/healthz"))[0] == 200


async def test_half_a_request_is_refused(server: ObservationServer) -> None:
    assert (await exchange(server, b"GET /healthz HT", finish=True))[0] == 400


async def test_an_observer_never_sees_an_exception(server: ObservationServer, observed: Observed) -> None:
    observed.broken = True
    status, content = await get(server, "/metrics")
    assert (status, content) == (500, b"Internal Server Error\n")
    assert (await get(server, "/healthz"))[0] == 200


async def test_a_silent_observer_is_dropped(server: ObservationServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observation, "REQUEST_TIMEOUT_S", 0.05)
    assert await exchange(server, b"GET /healthz") == (0, b"")


async def test_too_many_observers_are_dropped(server: ObservationServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observation, "CONNECTIONS_MAX", 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /healthz HTTP/1.1\r\n")
    await writer.drain()
    await connected(server)
    assert await exchange(server, b"") == (0, b"")
    writer.write(b"\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_closing_drops_what_is_open_and_may_be_repeated(observed: Observed) -> None:
    server = ObservationServer(host="127.0.0.1", port=0, readiness=lambda: observed.readiness, metrics=observed.metrics)
    with pytest.raises(RuntimeError):
        _ = server.port
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    await connected(server)
    await server.close()
    await server.close()
    assert await reader.read() == b""
    writer.close()
