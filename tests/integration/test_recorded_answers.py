"""`agentctl template test --record`, and afterwards without a network: answers.json beside the template."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from client.agentctl.commands.template import template as group
from client.agentctl.exit_codes import ExitCode
from client.authoring.archive import collect
from sandbox.engine import wat2wasm
from tests.http_server import HttpServer, Seen, ServerTls, ok, server_tls, threaded_http_server
from tests.isolation import guests
from tests.llm_server import LlmServer, threaded_llm_server


async def count(seen: Seen, writer: Any) -> None:
    writer.write(ok(f"{seen.target} for the first time".encode()))
    await writer.drain()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ServerTls:
    return server_tls(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(tls: ServerTls) -> Iterator[HttpServer]:
    with threaded_http_server(count, tls=tls) as running:
        yield running


@pytest.fixture(scope="module")
def models() -> Iterator[LlmServer]:
    with threaded_llm_server(host="127.0.0.1") as running:
        yield running


def write(folder: Path, operation: str, request: object, grants: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    binding = "default" if operation.startswith("llm") else "api"
    argument = json.dumps({"binding": binding, "request": json.dumps(request)})
    (folder / "agent.wasm").write_bytes(wat2wasm(guests.ask(operation.encode(), argument.encode())))
    document = {
        "schema": 1, "domain": "dev", "name": "reader", "version": "1.0.0", "grants": grants,
        "code": {"module": "agent.wasm", "abi": "command"}, "examples": [{"input": ""}, {"input": "again"}],
    }  # fmt: skip
    (folder / "template.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def reader(folder: Path, server: HttpServer, path: str = "/v1/x") -> Path:
    grant = {"binding": "api", "origin": server.origin, "methods": ["GET"], "path_prefixes": ["/v1"]}
    return write(folder, "http.fetch", {"method": "GET", "path": path}, {"http": [grant]})


def examples_of(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(group, ["test", str(folder), *options])


def asking(server: HttpServer, tls: ServerTls) -> tuple[str, ...]:
    return ("--private", f"{server.origin}=127.0.0.1/32", "--authorities", str(tls.ca_file))


def recorded(folder: Path, server: HttpServer, tls: ServerTls) -> None:
    done = examples_of(folder, "--record", *asking(server, tls))
    assert done.exit_code == 0, done.output


def test_recorded_answers_serve_without_a_network(tmp_path: Path, server: HttpServer, tls: ServerTls) -> None:
    folder = reader(tmp_path / "agent", server)
    recorded(folder, server, tls)
    kept = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    (call,) = kept["1"]
    assert call["call"] == "http.fetch"
    assert call["argument"] == {"binding": "api", "request": {"method": "GET", "path": "/v1/x"}}
    assert call["answer"]["ok"]["body"] == "/v1/x for the first time"
    connections = server.connections
    done = examples_of(folder)
    assert done.exit_code == 0, done.output
    assert server.connections == connections
    done = examples_of(folder, "--live", *asking(server, tls))
    assert done.exit_code == 0, done.output
    assert server.connections > connections


def test_a_call_that_was_not_recorded_fails_the_example(tmp_path: Path, server: HttpServer, tls: ServerTls) -> None:
    folder = reader(tmp_path / "agent", server)
    recorded(folder, server, tls)
    reader(folder, server, "/v1/other")
    done = examples_of(folder)
    assert done.exit_code == ExitCode.FINDINGS
    assert (
        'expected http.fetch {"binding": "api", "request": {"method": "GET", "path": "/v1/x"}} as call 1' in done.output
    )
    kept = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    kept["1"], kept["2"] = [], [*kept["2"], *kept["2"]]
    (folder / "answers.json").write_text(json.dumps(kept), encoding="utf-8")
    reader(folder, server)
    done = examples_of(folder)
    assert done.exit_code == ExitCode.FINDINGS
    assert "example 1: answers.json: expected 0 calls, got one more: http.fetch" in done.output
    assert "example 2: answers.json: expected http.fetch as call 2, got none" in done.output


def test_language_models_are_recorded_too(tmp_path: Path, models: LlmServer) -> None:
    request = {"messages": [{"role": "user", "content": "hello"}]}
    grant = {"binding": "default", "models": ["echo"], "tokens_max": 100}
    folder = write(tmp_path / "agent", "llm.complete", request, {"llm": [grant]})
    done = examples_of(folder, "--record", "--llm", f"default={models.base_url}")
    assert done.exit_code == 0, done.output
    asked = len(models.requests)
    assert examples_of(folder).exit_code == 0
    assert len(models.requests) == asked


@pytest.mark.parametrize("text", ["{", "[]", '{"one": []}', '{"1": [{"call": "http.fetch"}]}', '{"1": [], "1": []}'])
def test_a_file_of_another_form_is_refused(tmp_path: Path, server: HttpServer, text: str) -> None:
    folder = reader(tmp_path / "agent", server)
    (folder / "answers.json").write_text(text, encoding="utf-8")
    done = examples_of(folder)
    assert done.exit_code != 0
    assert "answers.json" in f"{done.output}{done.exception}"


def test_record_and_live_exclude_each_other_and_answers_are_no_source(tmp_path: Path, server: HttpServer) -> None:
    folder = reader(tmp_path / "agent", server)
    assert examples_of(folder, "--record", "--live").exit_code == ExitCode.USAGE
    (folder / "answers.json").write_text("{}", encoding="utf-8")
    (folder / "agent.py").write_text("", encoding="utf-8")
    assert list(collect(folder)) == ["agent.py"]
