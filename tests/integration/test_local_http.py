"""`agentctl template run --grant http`: the node's rules, within what the command line names."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from client.agentctl.main import cli
from client.local_http import InvalidOutsideError, Outside
from client.local_run import LocalRun, run_template
from sandbox.engine import wat2wasm
from service.tls import TlsFilesError
from tests.factory import agentctl
from tests.http_server import HttpServer, Seen, ServerTls, ok, server_tls, threaded_http_server
from tests.isolation import guests

TOKEN = "canary-5f3c9e71aa-0042"


async def echo(seen: Seen, writer: Any) -> None:
    writer.write(ok(f"{seen.target} {seen.headers.get('x-key', 'no key')}".encode()))
    await writer.drain()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ServerTls:
    return server_tls(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(tls: ServerTls) -> Iterator[HttpServer]:
    with threaded_http_server(echo, tls=tls) as running:
        yield running


@pytest.fixture
def template(tmp_path: Path, server: HttpServer) -> Path:
    request = json.dumps({"binding": "api", "request": json.dumps({"method": "GET", "path": "/v1/x"})})
    grant = {
        "binding": "api",
        "origin": server.origin,
        "methods": ["GET"],
        "path_prefixes": ["/v1"],
        "inject": {"header": "X-Key", "secret": "api-token"},
    }
    (tmp_path / "agent.wasm").write_bytes(wat2wasm(guests.ask(b"http.fetch", request.encode())))
    document = {
        "schema": 1, "domain": "dev", "name": "reader", "version": "1.0.0",
        "code": {"module": "agent.wasm", "abi": "command"}, "grants": {"http": [grant]},
    }  # fmt: skip
    (tmp_path / "template.json").write_text(json.dumps(document))
    return tmp_path / "template.json"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.touch(mode=0o600)
    file.write_text(TOKEN)
    return file


def run(path: Path, outside: Outside | None, *, granted: frozenset[str] = frozenset({"http"})) -> dict[str, Any]:
    found: LocalRun = run_template(
        path, text="", config={}, granted=granted, parents=(), image=None, tell=lambda _line: None, outside=outside
    )
    assert found.output is not None
    answer: dict[str, Any] = json.loads(found.output)
    return answer


def test_it_reaches_what_the_command_line_names(
    template: Path, server: HttpServer, tls: ServerTls, secret: Path
) -> None:
    outside = Outside(
        private={server.origin: ("127.0.0.1/32",)}, secrets={"api-token": secret}, authorities=tls.ca_file
    )
    assert run(template, outside)["ok"]["body"] == "/v1/x [secret]"
    assert server.seen[-1].headers["x-key"] == TOKEN


def test_what_is_not_named_is_refused_as_on_a_node(
    template: Path, server: HttpServer, tls: ServerTls, secret: Path
) -> None:
    before = server.connections
    private = {server.origin: ("127.0.0.1/32",)}
    without = [
        run(template, None, granted=frozenset()),
        run(template, Outside(bindings=frozenset(), private=private, secrets={"api-token": secret})),
        run(template, Outside(private=private, authorities=tls.ca_file)),  # no secret
    ]
    assert [answer["error"]["kind"] for answer in without] == ["denied"] * 3
    assert server.connections == before


def test_a_secret_file_that_others_can_read_is_not_used(template: Path, server: HttpServer, secret: Path) -> None:
    secret.chmod(0o644)
    outside = Outside(private={server.origin: ("127.0.0.1/32",)}, secrets={"api-token": secret})
    assert run(template, outside)["error"]["kind"] == "failed"


@pytest.mark.parametrize(
    "outside",
    [
        Outside(bindings=frozenset({"other"})),
        Outside(secrets={"api-tokem": Path("/missing")}),
        Outside(private={"api.example": ("10.0.0.0/8",)}),
        Outside(private={"https://api.example": ("10.0.0.1/8",)}),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_runs(template: Path, outside: Outside) -> None:
    with pytest.raises(InvalidOutsideError):
        run(template, outside)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--grant", "kv"), "dev/reader@1.0.0 asks for (http), got kv"),
        (("--grant", "files=/data=."), "dev/reader@1.0.0 asks for (http), got files"),
        (("--secret", "api-token=token"), "expected http to be granted where secrets are, got api-token"),
        (("--llm-key", "default=token"), "expected llm to be granted where its keys are, got default"),
    ],
)
def test_what_the_template_does_not_ask_for_is_not_granted(
    template: Path, arguments: tuple[str, ...], says: str
) -> None:
    done = agentctl(template.parent, "template", "run", str(template), "--input", "", *arguments)
    assert done.status == 2
    assert says in done.errors


def test_authorities_that_are_missing_are_refused(template: Path) -> None:
    with pytest.raises(TlsFilesError):
        run(template, Outside(authorities=Path("/missing")))


def test_the_command_takes_grants_networks_and_secrets(
    template: Path, server: HttpServer, tls: ServerTls, secret: Path
) -> None:
    arguments = [
        "template", "run", str(template), "--input", "", "--grant", "http:api",
        "--private", f"{server.origin}=127.0.0.1/32",
        "--secret", f"api-token={secret}", "--authorities", str(tls.ca_file),
    ]  # fmt: skip
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0
    assert '"/v1/x [secret]"' in result.stdout
    assert TOKEN not in result.output


@pytest.mark.parametrize(
    "option",
    [("--grant", "llm"), ("--grant", "kv:x"), ("--grant", "http:"), ("--private", "10.0.0.0/8"), ("--secret", "=x")],
)
def test_a_word_that_means_nothing_is_a_usage_error(template: Path, option: tuple[str, str]) -> None:
    assert CliRunner().invoke(cli, ["template", "run", str(template), "--input", "", *option]).exit_code == 2
