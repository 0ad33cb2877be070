import asyncio
import base64
import gzip
import json
import logging
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from data_plane.admission.circuit_breaker import BreakerSettings, CircuitBreakers
from data_plane.broker.amounts import Amounts
from data_plane.broker.answers import ErrorKind, HostRefusal, Members
from data_plane.http_calls import HttpCalls
from sandbox.limits import SandboxLimits
from service.telemetry import HTTP_BYTES, HTTP_REQUESTS, Telemetry
from templates.charter import SecretBinding
from templates.grants import Grants, HttpGrant, HttpInjection
from templates.names import TemplateName, TemplatePattern
from tests.egress_world import ALLOWED, FixedResolver, MemorySecrets, egress_of, http_calls
from tests.http_server import Handler, HttpServer, Seen, answers, http_server, ok

FAILING = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
TEMPLATE = TemplateName.parse("docs/reader")
TOKEN = "canary-5f3c9e71aa/04+42"
SECRETS = {"api-token": f"Bearer {TOKEN}".encode(), "other": b"Bearer another-secret-0"}


def grants_for(server: HttpServer, **changes: Any) -> Grants:
    members: dict[str, Any] = {
        "binding": "api",
        "origin": server.origin,
        "methods": ("GET", "POST", "HEAD"),
        "path_prefixes": ("/v1",),
        "inject": HttpInjection(header="Authorization", secret="api-token"),
        **changes,
    }
    return Grants(http=(HttpGrant(**members),))


def bindings_for(server: HttpServer) -> dict[str, SecretBinding]:
    binding = SecretBinding(
        origin=server.origin,
        header="Authorization",
        path_prefixes=("/v1",),
        methods=("GET", "POST", "HEAD"),
        templates=(TemplatePattern.parse("docs/*"),),
    )
    return {"api-token": binding}


async def ask(
    calls: HttpCalls,
    grants: Grants,
    bindings: Mapping[str, SecretBinding],
    *,
    amounts: Amounts | None = None,
    tenant: str = "acme",
    **request: Any,
) -> dict[str, Any]:
    members = Members.parse(
        json.dumps({"binding": "api", "request": json.dumps({"method": "GET", "path": "/v1/x", **request})}).encode()
    )
    answer = await calls.call(
        "fetch", members,
        tenant=tenant, template=TEMPLATE, grants=grants, bindings=bindings,
        amounts=amounts or Amounts(SandboxLimits()),
        deadline=time.monotonic() + 5,
    )  # fmt: skip
    assert isinstance(answer, dict)
    return answer


def calls_for(server: HttpServer, **changes: Any) -> HttpCalls:
    return http_calls(egress_of({server.origin: ["127.0.0.1/32"]}), secrets=MemorySecrets(SECRETS), **changes)


async def through(handler: Handler, **request: Any) -> tuple[dict[str, Any], HttpServer]:
    async with http_server(handler) as server:
        answer = await ask(calls_for(server), grants_for(server), bindings_for(server), **request)
    return answer, server


async def test_a_secret_is_added_on_the_way_out_and_nowhere_else() -> None:
    answer, server = await through(answers(ok(b"found", "X-Kind: plain")), query={"q": "a"})
    assert answer == {"status": 200, "headers": {"x-kind": "plain"}, "body": "found"}
    assert server.seen[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert server.seen[0].target == "/v1/x?q=a"


ECHOES = {
    "plain": lambda value: ok(f"you sent {value}".encode()),
    "in a header": lambda value: ok(b"", f"X-Echo: {value}"),
    "in two headers of one name": lambda value: ok(b"", f"X-Echo: {value[:20]}", f"X-Echo: {value}"),
    "JSON": lambda value: ok(json.dumps({"headers": {"Authorization": value}}).encode()),
    "JSON in JSON": lambda value: ok(json.dumps(json.dumps({"a": value})).encode()),
    "base64": lambda value: ok(base64.b64encode(value.encode())),
    "base64 with something before": lambda value: ok(base64.b64encode(b"x" + value.encode())),
    "base64url": lambda value: ok(base64.urlsafe_b64encode(b"xy" + value.encode())),
    "hex": lambda value: ok(value.encode().hex().encode()),
    "percent": lambda value: ok(urllib.parse.quote(value, safe="").encode()),
    "reversed": lambda value: ok(value[::-1].encode()),
    "gzip": lambda value: ok(gzip.compress(f"you sent {value}".encode()), "Content-Encoding: gzip"),
    "gzip in members that split it": lambda value: ok(
        gzip.compress(value[:15].encode()) + gzip.compress(value[15:].encode()), "Content-Encoding: gzip"
    ),
    "chunks that split it": lambda value: (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"1\r\n" + bytes([each]) + b"\r\n" for each in value.encode())
        + b"0\r\n\r\n"
    ),
    "binary": lambda value: ok(b"\xff\xfe" + value.encode() + b"\x00"),
    "a long body": lambda value: ok(b"a" * 500_000 + value.encode() + b"b" * 500_000),
    "a redirect": lambda value: ok(
        b"", f"Location: https://evil.example/?{urllib.parse.quote(value)}", status="302 Found"
    ),
    "an error page": lambda value: ok(f"denied: {value}".encode(), status="401 Unauthorized"),
}


@pytest.mark.parametrize("name", ECHOES)
async def test_a_service_that_echoes_the_secret_does_not_hand_it_to_the_guest(name: str) -> None:
    async def echo(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(ECHOES[name](seen.headers["authorization"]))
        await writer.drain()

    answer, server = await through(echo)
    assert server.seen[0].headers["authorization"] == f"Bearer {TOKEN}"
    body = base64.b64decode(answer["body_base64"]) if "body_base64" in answer else answer["body"].encode()
    told = json.dumps(answer).encode() + body
    assert b"[secret]" in told
    for form in (TOKEN.encode(), TOKEN[::-1].encode(), TOKEN.encode().hex().encode(), TOKEN[3:-3].encode()):
        assert form not in told
    assert base64.b64encode(TOKEN.encode())[2:-4] not in told


async def test_without_the_charters_word_no_secret_is_read_and_nothing_is_sent() -> None:
    async with http_server(answers(ok(b"no"))) as server:
        secrets = MemorySecrets(SECRETS)
        calls = http_calls(egress_of({server.origin: ["127.0.0.1/32"]}), secrets=secrets)
        with pytest.raises(HostRefusal, match="the charter does not bind it") as caught:
            await ask(calls, grants_for(server), {})
    assert caught.value.kind is ErrorKind.DENIED
    assert (secrets.asked, server.connections) == ([], 0)


async def test_a_grant_cannot_take_a_secret_to_another_origin() -> None:
    async with http_server(answers(ok(b"no"))) as bound, http_server(answers(ok(b"no"))) as other:
        calls = calls_for(other)
        with pytest.raises(HostRefusal, match="another origin"):
            await ask(calls, grants_for(other), bindings_for(bound))
        renamed = grants_for(other, inject=HttpInjection(header="X-Debug", secret="api-token"))
        with pytest.raises(HostRefusal, match="another header"):
            await ask(calls, renamed, bindings_for(other))
        unbound = grants_for(other, inject=HttpInjection(header="Authorization", secret="other"))
        with pytest.raises(HostRefusal, match="does not bind it"):
            await ask(calls, unbound, bindings_for(other))
    assert other.connections == 0


async def test_a_secret_that_is_missing_fails_without_a_request(caplog: pytest.LogCaptureFixture) -> None:
    async with http_server(answers(ok(b"no"))) as server:
        calls = http_calls(egress_of({server.origin: ["127.0.0.1/32"]}), secrets=MemorySecrets({"api-token": b"tiny"}))
        with caplog.at_level(logging.DEBUG), pytest.raises(HostRefusal) as caught:
            await ask(calls, grants_for(server), bindings_for(server))
    assert (caught.value.kind, server.connections) == (ErrorKind.FAILED, 0)
    assert "tiny" not in caught.value.message + caplog.text


async def test_a_path_outside_of_the_grant_resolves_nothing() -> None:
    resolver = FixedResolver(["93.184.216.34"])
    calls = http_calls(egress_of({}, resolver=resolver))
    server = HttpServer(port=8443, scheme="https")
    with pytest.raises(HostRefusal) as caught:
        await ask(calls, grants_for(server, inject=None), {}, path="/v1/%2e%2e/admin")
    assert (caught.value.kind, resolver.asked) == (ErrorKind.DENIED, [])


async def test_an_invocation_makes_so_many_requests_and_no_more() -> None:
    async with http_server(answers(ok(b"a" * 100))) as server:
        amounts = Amounts(SandboxLimits())
        calls = calls_for(server)
        for _ in range(ALLOWED.requests_max):
            await ask(calls, grants_for(server), bindings_for(server), amounts=amounts)
        with pytest.raises(HostRefusal) as caught:
            await ask(calls, grants_for(server), bindings_for(server), amounts=amounts)
        assert caught.value.kind is ErrorKind.BUDGET
        await ask(calls, grants_for(server), bindings_for(server))  # another invocation
    assert len(server.seen) == ALLOWED.requests_max + 1
    assert amounts.http_requests == ALLOWED.requests_max
    sent_bytes, received_bytes, *_ = amounts.used
    assert received_bytes > 100 * ALLOWED.requests_max
    assert sent_bytes == sum(len(seen.raw) for seen in server.seen[:-1])


async def test_an_invocation_receives_so_much_and_no_more() -> None:
    async with http_server(answers(ok(b"a" * 1_900))) as server:
        calls, amounts = calls_for(server), Amounts(SandboxLimits(received_bytes=3_000))
        await ask(calls, grants_for(server), bindings_for(server), amounts=amounts)
        with pytest.raises(HostRefusal) as caught:
            await ask(calls, grants_for(server), bindings_for(server), amounts=amounts)
        assert caught.value.kind is ErrorKind.QUOTA


async def test_an_invocation_sends_so_much_and_no_more_heads_and_secrets_included() -> None:
    async with http_server(answers(ok(b""))) as server:
        calls, grants, bindings = calls_for(server), grants_for(server), bindings_for(server)
        whole = Amounts(SandboxLimits())
        await ask(calls, grants, bindings, amounts=whole)
        (needed, *_) = whole.used
        for most, refused in ((needed - 1, True), (needed, False)):
            amounts = Amounts(SandboxLimits(sent_bytes=most))
            if refused:
                with pytest.raises(HostRefusal, match=f"within {most} bytes, got {needed}") as caught:
                    await ask(calls, grants, bindings, amounts=amounts)
                assert (caught.value.kind, amounts.used[0]) == (ErrorKind.BUDGET, 0)
            else:
                await ask(calls, grants, bindings, amounts=amounts)
    assert len(server.seen) == 2


async def test_what_failed_is_counted_as_spent_too() -> None:
    async with http_server(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + b"a" * 3_000_000)) as server:
        calls, amounts = calls_for(server), Amounts(SandboxLimits())
        with pytest.raises(HostRefusal):
            await ask(calls, grants_for(server), bindings_for(server), amounts=amounts)
    assert amounts.used[1] > 2_000_000


async def test_a_tenant_has_so_many_requests_at_once_and_another_tenant_its_own() -> None:
    go_on, both = asyncio.Event(), asyncio.Barrier(3)

    async def wait(_seen: Seen, writer: asyncio.StreamWriter) -> None:
        if not go_on.is_set():
            await both.wait()
        await go_on.wait()
        writer.write(ok(b"done"))

    async with http_server(wait) as server:
        calls = calls_for(server, per_tenant_max=2)
        grants, bindings = grants_for(server), bindings_for(server)
        async with asyncio.TaskGroup() as group:
            first = [group.create_task(ask(calls, grants, bindings)) for _ in range(2)]
            await both.wait()
            with pytest.raises(HostRefusal) as caught:
                await ask(calls, grants, bindings)
            go_on.set()
            other = group.create_task(ask(calls, grants, bindings, tenant="umbrella"))
        assert caught.value.kind is ErrorKind.QUOTA
        assert [task.result()["body"] for task in (*first, other)] == ["done"] * 3
        assert (await ask(calls, grants, bindings))["body"] == "done"


async def test_requests_are_counted_by_their_result() -> None:
    telemetry = Telemetry()
    async with http_server(answers(ok(b"no", status="404 Not Found"))) as server:
        calls = calls_for(server, telemetry=telemetry)
        await ask(calls, grants_for(server), bindings_for(server))
        with pytest.raises(HostRefusal):
            await ask(calls, grants_for(server), bindings_for(server), path="/other")
    text = telemetry.prometheus_text().decode()
    assert f'{HTTP_REQUESTS.name}{{result="4xx"}} 1.0' in text
    assert f'{HTTP_REQUESTS.name}{{result="denied"}} 1.0' in text
    assert f'{HTTP_BYTES.name}{{direction="sent"}} {float(len(server.seen[0].raw))}' in text


async def test_an_origin_that_keeps_failing_is_left_alone_for_a_while_by_that_tenant_only() -> None:
    breakers: CircuitBreakers[tuple[str, str]] = CircuitBreakers(BreakerSettings(calls_min=3, pause_s_first=1.0))
    async with http_server(answers(FAILING, FAILING, FAILING, ok(b"well again"), ok(b"well again"))) as server:
        calls, grants, bindings = calls_for(server, breakers=breakers), grants_for(server), bindings_for(server)
        for _ in range(3):
            assert (await ask(calls, grants, bindings))["status"] == 503
        with pytest.raises(HostRefusal, match=r"keeps failing; try again in (0\.\d|1\.0) s") as refused:
            await ask(calls, grants, bindings)
        assert refused.value.kind is ErrorKind.FAILED
        assert len(server.seen) == 3
        assert (await ask(calls, grants, bindings, tenant="other"))["body"] == "well again"
        await asyncio.sleep(1.25)
        assert (await ask(calls, grants, bindings))["body"] == "well again"


async def test_a_guests_own_faults_say_nothing_about_an_origin() -> None:
    breakers: CircuitBreakers[tuple[str, str]] = CircuitBreakers(BreakerSettings(calls_min=1))
    allowed = replace(ALLOWED, response_bytes_max=10)
    async with http_server(answers(*[ok(b"x" * 1_000)] * 4, ok(b"short"))) as server:
        calls = calls_for(server, breakers=breakers, allowed=allowed)
        for _ in range(4):
            with pytest.raises(HostRefusal) as refused:
                await ask(calls, grants_for(server), bindings_for(server))
            assert refused.value.kind is ErrorKind.QUOTA
        assert (await ask(calls, grants_for(server), bindings_for(server)))["body"] == "short"
