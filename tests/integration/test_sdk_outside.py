"""`http`, `llm` and a TTL through every SDK: agents built by the toolchains, in the sandbox, at servers on loopback."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client.authoring.building import ToolchainMissingError, build
from client.authoring.languages import LANGUAGES
from client.authoring.scaffold import begin
from client.local_http import Outside
from client.local_llm import Models
from client.local_run import run_template
from tests.http_server import HttpServer, Seen, ServerTls, ok, server_tls, threaded_http_server
from tests.images import BUILD, image_bytes
from tests.llm_server import LlmServer, threaded_llm_server

pytestmark = [pytest.mark.toolchain, pytest.mark.timeout(600)]

SOURCES = Path(__file__).parent / "agents"
PYTHON, JAVASCRIPT = SOURCES / "outside.py", SOURCES / "outside.js"
AGENTS = {
    "python": PYTHON,
    "python-module": PYTHON,
    "javascript": JAVASCRIPT,
    "javascript-module": JAVASCRIPT,
    "c": SOURCES / "outside.c",
    "zig": SOURCES / "outside.zig",
    "go": SOURCES / "outside.go",
}


async def answer(seen: Seen, writer: Any) -> None:
    said = {"target": seen.target, "method": seen.method, "body": seen.body.decode()}
    status = "404 Not Found" if seen.target.startswith("/v1/missing") else "200 OK"
    writer.write(ok(json.dumps(said).encode(), "Content-Type: application/json", status=status))
    await writer.drain()


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled code, Zig's and Go's caches of all test runs: they are keyed by content."""
    kept = BUILD / "test-home"
    kept.mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("HOME", str(kept))


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ServerTls:
    return server_tls(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(tls: ServerTls) -> Iterator[HttpServer]:
    with threaded_http_server(answer, tls=tls) as running:
        yield running


@pytest.fixture(scope="module")
def models() -> Iterator[LlmServer]:
    with threaded_llm_server(host="127.0.0.1") as running:
        yield running


def test_every_language_has_such_an_agent() -> None:
    assert AGENTS.keys() == LANGUAGES.keys()


@pytest.mark.parametrize("name", AGENTS)
def test_an_sdk_reaches_what_its_grants_open(
    name: str, tmp_path: Path, server: HttpServer, tls: ServerTls, models: LlmServer
) -> None:
    image_bytes("cpython")
    image_bytes("quickjs")
    language = LANGUAGES[name]
    document = begin(language, name="outside", domain="dev", folder=tmp_path / "outside")
    (document.parent / language.main).write_bytes(AGENTS[name].read_bytes())
    template = json.loads(document.read_text(encoding="utf-8"))
    for field in ("examples", "output_schema", "input_schema", "default_config", "config_schema"):
        template.pop(field, None)
    template["grants"] = {
        "kv": {"namespace": "notes", "bytes_max": 4096},
        "http": [{"binding": "api", "origin": server.origin, "methods": ["GET", "POST"], "path_prefixes": ["/v1"]}],
        "llm": [{"binding": "default", "models": ["echo", "forbidden"], "tokens_max": 1_000}],
    }
    document.write_text(json.dumps(template), encoding="utf-8")
    if language.needs_build:
        try:
            build(document, tell=lambda _line: None)
        except ToolchainMissingError as missing:
            pytest.skip(missing.message)
    found = run_template(
        document,
        text="trees",
        config={},
        granted=frozenset({"kv", "http", "llm"}),
        parents=(),
        image=None,
        tell=lambda _line: None,
        outside=Outside(private={server.origin: ("127.0.0.1/32",)}, authorities=tls.ca_file),
        models=Models(urls={"default": models.base_url}),
    )
    assert found.output is not None, (found.failure, found.logs)
    assert json.loads(found.output) == {
        "posted": {"target": "/v1/works?about=trees", "method": "POST", "body": '{"about":"trees"}'},
        "missing": 404,
        "complete": "echo: about trees",
        "tokens": 3,
        "pieces": True,
        "stream": "echo: one two three",
        "finish": "stop",
        "refused": "failed",
        "denied": "denied",
        "kept": "trees",
        "conflict": "conflict",
    }
    assert models.requests[-1]["model"] == "forbidden"
