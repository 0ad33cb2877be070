import asyncio
import gzip
import socket
import threading
import time
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

import pytest

from data_plane.broker.address_policy import Destinations
from data_plane.broker.answers import ErrorKind, HostRefusal
from data_plane.broker.origin import IpAddress, Origin
from data_plane.egress_connect import Connector, SystemResolver, client_tls
from data_plane.http_egress import READ_BYTES, EgressLimits, HttpEgress, Response, Traffic
from service.tls import TlsFilesError
from tests.egress_world import FixedResolver, egress_of
from tests.http_server import HOST, Handler, HttpServer, Seen, ServerTls, answers, http_server, ok, server_tls

LIMITS = EgressLimits(header_bytes_max=4_096, headers_max=20, body_bytes_max=10_000)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ServerTls:
    return server_tls(tmp_path_factory.mktemp("tls"))


async def fetch(
    server: HttpServer,
    *,
    method: str = "GET",
    target: str = "/",
    body: bytes = b"",
    headers: Sequence[tuple[str, str]] = (),
    limits: EgressLimits = LIMITS,
    seconds: float = 5.0,
    ca_file: Path | None = None,
    traffic: Traffic | None = None,
) -> tuple[Response, bytes]:
    egress = egress_of({server.origin: ("127.0.0.1/32",)}, ca_file=ca_file)
    async with egress.request(
        Origin.parse(server.origin), method, target, headers, body,
        limits=limits, deadline=time.monotonic() + seconds, traffic=traffic,
    ) as response:  # fmt: skip
        return response, await response.read()


async def refusal(handler: Handler, *, limits: EgressLimits = LIMITS, seconds: float = 5.0) -> HostRefusal:
    async with http_server(handler) as server:
        with pytest.raises(HostRefusal) as caught:
            await fetch(server, limits=limits, seconds=seconds)
    return caught.value


async def test_a_request_arrives_as_it_was_meant_and_so_does_the_response() -> None:
    async with http_server(answers(ok(b"found", "X-One: 1", "X-One: 2"))) as server:
        traffic = Traffic()
        response, body = await fetch(
            server, method="POST", target="/works?q=a%20b", body=b"what", headers=[("X-Key", "v")], traffic=traffic
        )
    (seen,) = server.seen
    assert (seen.method, seen.target, seen.body) == ("POST", "/works?q=a%20b", b"what")
    assert seen.headers == {
        "host": f"{HOST}:{server.port}",
        "x-key": "v",
        "accept-encoding": "gzip",
        "connection": "close",
        "content-length": "4",
    }
    assert (response.status, body) == (200, b"found")
    assert [value for name, value in response.headers if name == "x-one"] == ["1", "2"]
    assert traffic.sent == len(seen.raw)
    assert traffic.received > len(body)


async def test_tls_is_verified_by_the_name_of_the_origin(tls: ServerTls) -> None:
    async with http_server(answers(ok(b"safe")), tls=tls) as server:
        _, body = await fetch(server, ca_file=tls.ca_file)
    assert body == b"safe"


async def test_a_certificate_for_another_name_is_refused(tls: ServerTls) -> None:
    async with http_server(answers(ok(b"no")), tls=tls, host="other.example.test") as server:
        with pytest.raises(HostRefusal, match=r"TLS with https://other\.example\.test") as caught:
            await fetch(server, ca_file=tls.ca_file)
    assert caught.value.kind is ErrorKind.FAILED
    assert server.seen == []


async def test_a_certificate_of_an_unknown_authority_is_refused(tls: ServerTls, tmp_path: Path) -> None:
    other = server_tls(tmp_path)
    async with http_server(answers(ok(b"no")), tls=tls) as server:
        with pytest.raises(HostRefusal, match="TLS with"):
            await fetch(server, ca_file=other.ca_file)
        with pytest.raises(HostRefusal, match="TLS with"):
            await fetch(server)  # the system's authorities
    assert server.seen == []


async def test_plain_http_under_an_https_origin_is_refused() -> None:
    async def plain(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(ok(b"not even encrypted"))
        writer.close()

    listening = await asyncio.start_server(plain, "127.0.0.1", 0)
    server = HttpServer(port=listening.sockets[0].getsockname()[1], scheme="https")
    with pytest.raises(HostRefusal, match="TLS with") as caught:
        await fetch(server)
    assert caught.value.kind is ErrorKind.FAILED
    listening.close()


async def test_no_session_keys_are_written_where_the_environment_says(
    tls: ServerTls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    async with http_server(answers(ok(b"safe")), tls=tls) as server:
        await fetch(server, ca_file=tls.ca_file)
    assert not (tmp_path / "keys").exists()


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with http_server(answers(ok(b"proxied"))) as proxy, http_server(answers(ok(b"direct"))) as server:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        _, body = await fetch(server)
    assert body == b"direct"
    assert proxy.connections == 0


async def test_a_redirect_is_not_followed() -> None:
    async with http_server(answers(ok(b"stolen"))) as metadata:
        location = f"Location: http://127.0.0.1:{metadata.port}/latest/meta-data/"
        async with http_server(answers(ok(b"", location, status="302 Found"))) as server:
            response, _ = await fetch(server)
    assert response.status == 302
    assert metadata.connections == 0


# --- destinations


@asynccontextmanager
async def public(resolver: FixedResolver) -> AsyncIterator[tuple[HttpServer, HttpEgress]]:
    """A server on loopback, under an origin that the operator did not list."""
    async with http_server(answers(ok(b"reached"))) as server:
        server.scheme = "https"
        yield server, egress_of({}, resolver=resolver)


async def denied(egress: HttpEgress, origin: str) -> HostRefusal:
    with pytest.raises(HostRefusal) as caught:
        async with egress.request(Origin.parse(origin), "GET", "/", limits=LIMITS, deadline=time.monotonic() + 5):
            pass
    return caught.value


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["93.184.216.34", "127.0.0.1"],
        ["127.0.0.1", "93.184.216.34"],
        ["2606:2800:220:1::1", "::ffff:169.254.169.254"],
        ["64:ff9b::7f00:1"],
    ],
)
async def test_a_name_with_any_address_inside_reaches_nothing(addresses: list[str]) -> None:
    async with public(FixedResolver(addresses)) as (server, egress):
        assert (await denied(egress, server.origin)).kind is ErrorKind.DENIED
    assert server.connections == 0


async def test_a_name_that_changes_its_address_is_resolved_once() -> None:
    """The address that was judged is the one that is connected to: here the second answer would be loopback."""
    resolver = FixedResolver(["192.0.2.1"], ["127.0.0.1"])
    async with http_server(answers(ok(b"reached"))) as server:
        egress = egress_of({server.origin: ("192.0.2.0/24", "127.0.0.0/8")}, resolver=resolver)
        with pytest.raises(HostRefusal):
            async with egress.request(
                Origin.parse(server.origin), "GET", "/",
                limits=EgressLimits(connect_s=0.3), deadline=time.monotonic() + 5,
            ):  # fmt: skip
                pass
    assert resolver.asked == [HOST]
    assert server.connections == 0


async def test_a_public_name_is_resolved_as_an_absolute_one() -> None:
    resolver = FixedResolver(["127.0.0.1"])
    async with public(resolver) as (server, egress):
        await denied(egress, server.origin)
    assert resolver.asked == [f"{HOST}."]


async def test_plain_http_needs_the_operators_list() -> None:
    resolver = FixedResolver(["93.184.216.34"])
    assert (await denied(egress_of({}, resolver=resolver), "http://api.example.test")).kind is ErrorKind.DENIED
    assert resolver.asked == []


async def test_a_listed_origin_is_bound_to_its_networks() -> None:
    async with http_server(answers(ok(b"reached"))) as server:
        egress = egress_of({server.origin: ("10.0.0.0/8",)})
        assert (await denied(egress, server.origin)).kind is ErrorKind.DENIED
    assert server.connections == 0


async def test_the_list_does_not_cover_another_port_of_the_same_host() -> None:
    async with http_server(answers(ok(b"a"))) as listed, http_server(answers(ok(b"b"))) as other:
        egress = egress_of({listed.origin: ("127.0.0.1/32",)})
        assert (await denied(egress, other.origin)).kind is ErrorKind.DENIED
    assert other.connections == 0


async def test_a_name_without_an_address_fails() -> None:
    refused = await denied(egress_of({}, resolver=FixedResolver()), "https://nowhere.example.test")
    assert (refused.kind, "has no address" in refused.message) == (ErrorKind.FAILED, True)


async def test_the_second_address_is_tried_when_the_first_is_dead() -> None:
    async with http_server(answers(ok(b"alive"))) as server:
        resolver = FixedResolver(["127.0.0.2", "127.0.0.1"])  # nothing listens on the first
        egress = egress_of({server.origin: ("127.0.0.0/8",)}, resolver=resolver)
        async with egress.request(
            Origin.parse(server.origin), "GET", "/", limits=LIMITS, deadline=time.monotonic() + 5
        ) as response:
            assert await response.read() == b"alive"


class _Silent:
    async def resolve(self, _name: str) -> Sequence[IpAddress]:
        await asyncio.sleep(60)
        return ()


async def test_a_silent_name_server_costs_no_more_than_the_time_to_connect() -> None:
    egress = HttpEgress(Connector(destinations=Destinations(), resolver=_Silent(), tls=client_tls(None)))
    started = time.monotonic()
    with pytest.raises(HostRefusal) as caught:
        async with egress.request(
            Origin.parse("https://api.example.test"), "GET", "/",
            limits=EgressLimits(connect_s=0.2), deadline=started + 60,
        ):  # fmt: skip
            pass
    assert caught.value.kind is ErrorKind.BUDGET
    assert time.monotonic() - started < 20


# --- what a server can do wrong


FRAMINGS = {
    "both framings": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "a list of lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3, 4\r\n\r\nabcd",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc",
    "a signed length": b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
    "a length in hex": b"HTTP/1.1 200 OK\r\nContent-Length: 0x3\r\n\r\nabc",
    "a length of many digits": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\nabc",
    "an unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked with a vertical tab": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in 1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\nabc",
    "a NUL in a value": b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n",
    "a carriage return in a value": b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
    "no status": b"HTTP/1.1\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "switching protocols unasked": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    "a chunk size with a sign": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    "a chunk size in 0x": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
    "a chunk that is longer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
    "an end before the length": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    "an end before the last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-",
    "informational without end": b"HTTP/1.1 102 Processing\r\n\r\n" * 50,
    "an unknown encoding": ok(b"x", "Content-Encoding: br"),
    "two encodings": ok(b"x", "Content-Encoding: gzip, gzip"),
    "gzip that is none": ok(b"x", "Content-Encoding: gzip"),
    "half of gzip": ok(gzip.compress(b"a" * 999)[:-9], "Content-Encoding: gzip"),
    "something after gzip": ok(gzip.compress(b"a") + b"more", "Content-Encoding: gzip"),
}


@pytest.mark.parametrize("name", FRAMINGS)
async def test_what_is_not_one_clear_response_fails(name: str) -> None:
    assert (await refusal(answers(FRAMINGS[name]))).kind is ErrorKind.FAILED


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TOO_MUCH = {
    "a long header": ok(b"", "X: " + "a" * 5_000),
    "a header without end": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000,
    "many headers": ok(b"", *(f"X-{number}: 1" for number in range(30))),
    "long informational heads": (b"HTTP/1.1 103 Early Hints\r\nLink: " + b"a" * 4_000 + b"\r\n\r\n") * 8,
    "a long body": ok(b"a" * 10_001),
    "a long body in chunks": CHUNKED + (b"1000\r\n" + b"a" * 4_096 + b"\r\n") * 5,
    "a body of tiny chunks": CHUNKED + (b"1;" + b"e" * 400 + b"\r\na\r\n") * 400,
    "a body of single bytes": CHUNKED + b"1\r\na\r\n" * 3_000,
    "a compressed bomb": ok(gzip.compress(b"\0" * 5_000_000), "Content-Encoding: gzip"),
    "a deflated bomb": ok(zlib.compress(b"\0" * 5_000_000), "Content-Encoding: deflate"),
    "a bomb of members": ok(gzip.compress(b"\0" * 4_000) * 3, "Content-Encoding: gzip"),
}


@pytest.mark.parametrize("name", TOO_MUCH)
async def test_what_is_larger_than_it_may_be_ends_as_quota(name: str) -> None:
    assert (await refusal(answers(TOO_MUCH[name]))).kind is ErrorKind.QUOTA


async def test_a_body_of_just_the_limit_is_delivered() -> None:
    async with http_server(answers(ok(b"a" * 10_000))) as server:
        _, body = await fetch(server)
    assert len(body) == 10_000


@pytest.mark.parametrize(
    ("encoding", "encoded"),
    [
        ("gzip", gzip.compress(b"text" * 100)),
        ("x-gzip", gzip.compress(b"text" * 50) + gzip.compress(b"text" * 50)),
        ("deflate", zlib.compress(b"text" * 100)),
        ("identity", b"text" * 100),
    ],
    ids=["gzip", "members of gzip", "deflate", "identity"],  # a gzip header holds the time
)
async def test_an_encoded_body_is_decoded(encoding: str, encoded: bytes) -> None:
    async with http_server(answers(ok(encoded, f"Content-Encoding: {encoding}"))) as server:
        _, body = await fetch(server)
    assert body == b"text" * 100


async def test_small_chunks_are_no_crime_as_long_as_they_are_few() -> None:
    async with http_server(answers(CHUNKED + b"1\r\na\r\n" * 1_500 + b"0\r\n\r\n")) as server:
        _, body = await fetch(server)
    assert body == b"a" * 1_500


async def test_a_long_body_lets_others_have_the_loop() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with http_server(answers(ok(b"a" * 2_000_000))) as server:
        counting = asyncio.ensure_future(count())
        _, body = await fetch(server, limits=EgressLimits(body_bytes_max=2_000_000))
        counting.cancel()
    assert len(body) == 2_000_000
    assert turns > 2_000_000 // READ_BYTES


async def test_a_body_without_length_ends_with_the_connection() -> None:
    async with http_server(answers(b"HTTP/1.1 200 OK\r\n\r\nall of it")) as server:
        _, body = await fetch(server)
    assert body == b"all of it"


async def test_bytes_after_the_response_are_not_read_as_one() -> None:
    async with http_server(answers(ok(b"first") + ok(b"second"))) as server:
        _, body = await fetch(server)
    assert body == b"first"


async def test_the_answer_to_head_has_no_body_whatever_it_says() -> None:
    async with http_server(
        answers(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\nContent-Encoding: gzip\r\n\r\n")
    ) as server:
        response, body = await fetch(server, method="HEAD")
    assert (response.status, body) == (200, b"")


async def _drip(_seen: Seen, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
    for _ in range(3_000):
        writer.write(b"a")
        await writer.drain()
        await asyncio.sleep(0.02)


async def _drip_head(_seen: Seen, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for _ in range(3_000):
        writer.write(b"X: a\r\n")
        await writer.drain()
        await asyncio.sleep(0.02)


async def _never(_seen: Seen, _writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(90)


async def _stall(_seen: Seen, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\nabc")
    await asyncio.sleep(90)


@pytest.mark.parametrize(
    ("handler", "limits", "seconds"),
    [
        (_never, EgressLimits(first_byte_s=0.3), 60.0),
        (_never, EgressLimits(), 0.3),
        (_never, EgressLimits(total_s=0.3), 60.0),
        (_drip_head, EgressLimits(first_byte_s=0.3), 60.0),
        (_drip, EgressLimits(total_s=0.4), 60.0),
        (_drip, EgressLimits(), 0.4),
        (_stall, EgressLimits(piece_s=0.3), 60.0),
    ],
)
async def test_a_slow_server_costs_no_more_than_its_time(
    handler: Handler, limits: EgressLimits, seconds: float
) -> None:
    started = time.monotonic()
    assert (await refusal(handler, limits=limits, seconds=seconds)).kind is ErrorKind.BUDGET
    assert time.monotonic() - started < 20


async def test_a_handshake_that_never_ends_costs_no_more_than_the_time_to_connect() -> None:
    closed = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.read()
        writer.transport.abort()
        closed.set()

    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    server = HttpServer(port=listening.sockets[0].getsockname()[1], scheme="https")
    with pytest.raises(HostRefusal) as caught:
        await fetch(server, limits=EgressLimits(connect_s=0.3))
    assert caught.value.kind is ErrorKind.BUDGET
    async with asyncio.timeout(30):
        await closed.wait()
    listening.close()


async def test_pieces_arrive_before_the_end() -> None:
    go_on = asyncio.Event()

    async def handle(_seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await writer.drain()
        await go_on.wait()
        writer.write(b"4\r\nlast\r\n0\r\n\r\n")

    async with http_server(handle) as server:
        egress = egress_of({server.origin: ("127.0.0.1/32",)})
        async with egress.request(
            Origin.parse(server.origin), "GET", "/", limits=LIMITS, deadline=time.monotonic() + 5
        ) as response:
            pieces = []
            async for piece in response.pieces():
                pieces.append(piece)
                go_on.set()
    assert b"".join(pieces) == b"firstlast"  # without the first piece the server would not have gone on


async def test_cancellation_is_not_taken_for_a_timeout_and_closes_the_connection() -> None:
    closed = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        task.cancel()
        with suppress(ConnectionError):
            await reader.read()  # returns when the other side has closed
        closed.set()
        writer.transport.abort()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    task = asyncio.ensure_future(fetch(HttpServer(port=listening.sockets[0].getsockname()[1])))
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(30):
        await closed.wait()
    listening.close()


async def test_a_silent_name_takes_one_thread_whoever_asks_for_it() -> None:
    speak, asked = threading.Event(), []

    def lookup(name: bytes) -> list[str]:
        asked.append(name)
        if name == b"silent.example.":
            speak.wait(60)
            raise OSError
        return ["192.0.2.1", "192.0.2.1", "2001:db8::1"]

    resolver = SystemResolver(threads=2, lookup=lookup)
    waiting = [asyncio.ensure_future(resolver.resolve("silent.example.")) for _ in range(20)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    async with asyncio.timeout(30):
        assert await resolver.resolve("quick.example.") == (ip_address("192.0.2.1"), ip_address("2001:db8::1"))
    speak.set()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in ended] == [asyncio.CancelledError, *[OSError] * 19]
    assert sorted(asked) == [b"quick.example.", b"silent.example."]
    await resolver.resolve("quick.example.")  # a new question is asked anew: no answer is kept
    assert len(asked) == 3
    resolver.close()


async def test_the_system_resolves_what_stands_in_its_files() -> None:
    resolver = SystemResolver(threads=1)
    assert ip_address("127.0.0.1") in await resolver.resolve("localhost")
    resolver.close()


async def test_a_peer_that_is_not_the_judged_address_is_refused() -> None:
    async with http_server(answers(ok(b""))) as server:
        origin = Origin.parse(server.origin)
        allowed = Destinations.parse({server.origin: ["127.0.0.0/8", "192.0.2.1/32"]})
        with socket.create_connection(("127.0.0.1", server.port)) as connected:
            for destinations, judged in ((allowed, "192.0.2.1"), (Destinations(), "127.0.0.1")):
                connector = Connector(destinations=destinations, resolver=FixedResolver(), tls=client_tls(None))
                with pytest.raises(HostRefusal) as caught:
                    connector._require_peer(origin, ip_address(judged), connected)
                assert caught.value.kind is ErrorKind.DENIED


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_authorities_that_are_none_stop_the_start(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(TlsFilesError, match=r"authorities\.pem"):
        client_tls(file)
