"""A real node, a Python agent with an http grant and a secret, and a TLS server on loopback that echoes everything."""

import asyncio
import gzip
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import grpc
import pytest
from agentfactory.agent.v1 import agent_pb2 as pb

from data_plane.generation_files import GenerationFiles
from sandbox.compile_cache import CompileCache
from templates.charter import SecretBinding
from templates.names import TemplatePattern
from tests.http_server import HttpServer, Seen, ok, server_tls, threaded_http_server
from tests.images import compiled_image
from tests.node_process import NodeProcess
from tests.node_world import NodeWorld

pytestmark = pytest.mark.toolchain

CANARY = "canary-8d1f02c4b6a97e35"
SOURCE = dedent("""
    import json
    from agentfactory_sdk import http, log, HostError

    def process(text):
        request = json.loads(text)
        try:
            found = http.request(request.pop("binding"), request.pop("method", "GET"), request.pop("path"), **request)
        except HostError as error:
            log.warning(error.message)
            return {"kind": error.kind, "message": error.message}
        log.info(found.text[:500])
        return {"status": found.status, "headers": dict(found.headers), "text": found.text}
    """)


async def echo(seen: Seen, writer: asyncio.StreamWriter) -> None:
    told = {"target": seen.target, "headers": seen.headers, "body": seen.body.decode()}
    authorization = seen.headers.get("authorization", "none")
    compressed = gzip.compress(json.dumps(told).encode())
    writer.write(ok(compressed, "Content-Encoding: gzip", f"X-Echo: {authorization}"))
    await writer.drain()


@dataclass(frozen=True, kw_only=True)
class Site:
    server: HttpServer
    node: NodeProcess
    world: NodeWorld

    def ask(self, template: str = "docs/reader", **request: Any) -> dict[str, Any]:
        message = pb.InvokeTemplateRequest(template=template, input=json.dumps({"binding": "api", **request}))
        try:
            answer = self.node.agents().InvokeTemplate(message, timeout=30)
        except grpc.RpcError as error:
            pytest.fail(f"expected an answer, got {error}, {self.node.lines[-10:]}")
        found: dict[str, Any] = json.loads(answer.output)
        return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("http")
    tls = server_tls(directory / "tls")
    secrets = directory / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "api-token").touch(mode=0o600)
    (secrets / "api-token").write_text(f"Bearer {CANARY}\n")
    with threaded_http_server(echo, tls=tls) as server:
        binding = SecretBinding(
            origin=server.origin,
            header="Authorization",
            path_prefixes=("/v1",),
            methods=("GET", "POST"),
            templates=(TemplatePattern.parse("docs/reader"),),
        )
        world = NodeWorld.make(
            directory / "world", amend=lambda charter: replace(charter, secret_bindings={"api-token": binding})
        )
        grant = {
            "binding": "api",
            "origin": server.origin,
            "methods": ["GET", "POST"],
            "path_prefixes": ["/v1"],
            "inject": {"header": "Authorization", "secret": "api-token"},
        }
        limits = {"memory_bytes": 134_217_728, "wall_ms": 20_000}
        world.publish(
            world.source("docs/reader", SOURCE, grants={"http": [grant]}, limits=limits),
            world.source("docs/unbound", SOURCE, grants={"http": [grant]}, limits=limits),
            world.source("docs/ungranted", SOURCE, limits=limits),
        )
        world.seed()
        files = GenerationFiles(world.store("n1"))  # compiling the image is not what this is about
        CompileCache(files.compile_cache_directory, key=files.compile_cache_key).put(compiled_image())
        environment = world.environment(
            private_origins=json.dumps({server.origin: ["127.0.0.1/32"]}),
            egress_authorities_file=str(tls.ca_file),
            secrets_directory=str(secrets),
            log_level="debug",
        )
        with NodeProcess(world.installation, environment) as node:
            yield Site(server=server, node=node, world=world)


def test_an_agent_reaches_its_origin_with_a_secret_that_it_never_sees(site: Site) -> None:
    found = site.ask(method="POST", path="/v1/echo", query={"q": "é"}, json={"a": 1})
    seen = site.server.seen[-1]
    assert (seen.method, seen.target, seen.body) == ("POST", "/v1/echo?q=%C3%A9", b'{"a": 1}')
    assert seen.headers["authorization"] == f"Bearer {CANARY}"
    assert found["status"] == 200
    assert json.loads(found["text"])["headers"]["authorization"] == "Bearer [secret]"
    assert found["headers"]["x-echo"] == "Bearer [secret]"


def test_what_the_grant_does_not_permit_is_an_ordinary_error_to_the_agent(site: Site) -> None:
    before = len(site.server.seen)
    assert site.ask(method="DELETE", path="/v1/echo")["kind"] == "denied"
    assert site.ask(path="/v2/echo")["kind"] == "denied"
    assert site.ask(path="/v1/%2e%2e/admin")["kind"] == "denied"
    assert site.ask(path="/v1/echo", headers={"authorization": "Bearer mine"})["kind"] == "denied"
    assert site.ask(path="/v1/echo", headers={"accept": "a\r\nHost: evil"})["kind"] == "invalid"
    assert site.ask(binding="other", path="/v1/echo")["kind"] == "denied"
    assert len(site.server.seen) == before


def test_a_template_for_which_the_charter_does_not_bind_the_secret_sends_nothing(site: Site) -> None:
    before = len(site.server.seen)
    answer = site.ask("docs/unbound", path="/v1/echo")
    assert answer["kind"] == "denied"
    assert "the charter does not bind it for docs/unbound" in answer["message"]
    assert len(site.server.seen) == before


def test_a_template_without_the_grant_asks_nobody(site: Site) -> None:
    assert site.ask("docs/ungranted", path="/v1/echo")["kind"] == "denied"


def test_no_secret_is_in_logs_records_or_metrics(site: Site) -> None:
    site.ask(path="/v1/echo", query={"token": "canary-in-the-query"})
    stub = site.node.agents()
    deadline = time.monotonic() + 20
    while not (listed := stub.ListInvocations(pb.ListInvocationsRequest(page_size=100), timeout=30).invocations):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    records = "".join(map(str, listed))
    _, metrics = site.node.observed("/metrics")
    files = b"".join(
        path.read_bytes()
        for path in Path(site.world.store("n1")).rglob("*")
        if path.is_file() and path.suffix != ".wasm"
    )
    for place in (json.dumps(site.node.lines), records, metrics.decode(), files.decode("latin-1")):
        assert CANARY not in place
    assert "canary-in-the-query" not in json.dumps(site.node.lines) + metrics.decode()
    assert 'agentfactory_http_requests_total{result="2xx"}' in metrics.decode()
    assert 'agentfactory_host_calls_total{interface="http",result="denied"}' in metrics.decode()
