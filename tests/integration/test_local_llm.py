"""`agentctl template run --grant llm:BINDING=URL`: the node's rules, at the endpoint that the command line names."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from client.agentctl.main import cli
from client.local_http import InvalidOutsideError
from client.local_llm import Models
from client.local_run import LocalRun, run_template
from sandbox.engine import wat2wasm
from tests.isolation import guests
from tests.llm_server import LlmServer, threaded_llm_server

KEY = "sk-canary-5f3c9e71aa-0042"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def server() -> Iterator[LlmServer]:
    with threaded_llm_server(host="127.0.0.1") as running:
        yield running


def template(directory: Path, *, model: str = "echo", tokens_max: int = 1_000, say: str = "hello") -> Path:
    request = {"model": model, "messages": [{"role": "user", "content": say}]}
    asked = json.dumps({"binding": "default", "request": json.dumps(request)})
    (directory / "agent.wasm").write_bytes(wat2wasm(guests.ask(b"llm.complete", asked.encode())))
    grant = {"binding": "default", "models": ["echo", "leaky"], "tokens_max": tokens_max, "cost_max_microusd": 1}
    document = {
        "schema": 1, "domain": "dev", "name": "asker", "version": "1.0.0",
        "code": {"module": "agent.wasm", "abi": "command"}, "grants": {"llm": [grant]},
    }  # fmt: skip
    (directory / "template.json").write_text(json.dumps(document))
    return directory / "template.json"


def run(path: Path, models: Models, *, granted: frozenset[str] = frozenset({"llm"})) -> dict[str, Any]:
    found: LocalRun = run_template(
        path, text="", config={}, granted=granted, parents=(), image=None, tell=lambda _line: None, models=models
    )
    assert found.output is not None
    answer: dict[str, Any] = json.loads(found.output)
    return answer


def key_file(directory: Path) -> Path:
    file = directory / "key"
    file.touch(mode=0o600)
    file.write_text(KEY)
    return file


def test_it_asks_the_endpoint_that_the_command_line_names(tmp_path: Path, server: LlmServer) -> None:
    answer = run(template(tmp_path), Models(urls={"default": server.base_url}))
    assert answer["ok"]["text"] == "echo: hello"
    assert server.keys[-1] == ""


def test_the_key_is_sent_and_does_not_come_back(tmp_path: Path, server: LlmServer) -> None:
    models = Models(urls={"default": server.base_url}, keys={"default": key_file(tmp_path)})
    answer = run(template(tmp_path, model="leaky"), models)
    assert answer["ok"]["text"] == "the key is Bearer [secret] indeed"
    assert server.keys[-1] == f"Bearer {KEY}"


def test_grants_bound_a_local_run_as_they_bind_on_a_node(tmp_path: Path, server: LlmServer) -> None:
    models, before = Models(urls={"default": server.base_url}), len(server.requests)
    assert run(template(tmp_path, model="broken"), models)["error"]["kind"] == "denied"
    assert run(template(tmp_path, tokens_max=5), models)["error"]["kind"] == "budget"
    assert run(template(tmp_path), Models())["error"]["kind"] == "denied"
    assert run(template(tmp_path), models, granted=frozenset())["error"]["kind"] == "denied"
    assert len(server.requests) == before


@pytest.mark.parametrize(
    "url",
    [
        "http://llm.example/v1",
        "https://user@llm.example/v1",
        "https://llm.example/v1/",
        "ftp://llm.example",
        "llm.example",
    ],
)
def test_what_is_no_endpoint_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(InvalidOutsideError, match="endpoint"):
        run(template(tmp_path), Models(urls={"default": url}))


def test_a_binding_that_the_template_has_not_is_refused(tmp_path: Path, server: LlmServer) -> None:
    with pytest.raises(InvalidOutsideError, match="other"):
        run(template(tmp_path), Models(urls={"other": server.base_url}))


def test_the_command_line_says_it_in_one_option(tmp_path: Path, server: LlmServer) -> None:
    document = str(template(tmp_path))
    grant = f"llm:default={server.base_url}"
    key = f"default={key_file(tmp_path)}"
    done = CliRunner().invoke(
        cli, ["template", "run", document, "--input", "", "--grant", grant, "--llm-key", key], catch_exceptions=False
    )
    assert done.exit_code == 0
    assert json.loads(done.stdout)["ok"]["text"] == "echo: hello"
    for wrong in ("llm", "llm:default", "llm:=x", "files"):
        done = CliRunner().invoke(cli, ["template", "run", document, "--input", "", "--grant", wrong])
        assert done.exit_code == 2
