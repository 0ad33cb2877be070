"""`agentctl template run`: the node's sandbox and the node's refusals, without a node and without approval."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client.agentctl.commands.template import show_run
from client.agentctl.output import LOG_CUT
from client.documents import InvalidFileError
from client.inspection_cache import ModuleRefusedError
from client.local_grants import LocalGrantError
from client.local_run import ConfigMismatchError, InputMismatchError, LocalRun, LocalRunError, run_template
from client.publishing import CodeFileError
from sandbox.engine import wat2wasm
from sandbox.fibers import LOG_LINE_BYTES_MAX
from templates.problems import InvalidTemplateError
from templates.reasons import AgentFactoryError, Reason
from tests.factory import agentctl
from tests.isolation import guests

KV = {"kv": {"namespace": "notes", "bytes_max": 400}}
PUT = guests.ask(b"kv.put", b'{"key":"k","value":"v"}')


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own: compiled code is cached there."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def write(directory: Path, name: str = "agent", wat: str | None = guests.ECHO, **members: Any) -> Path:
    place = directory / name
    place.mkdir(parents=True)
    document: dict[str, Any] = {"schema": 1, "domain": "dev", "name": name, "version": "1.0.0", **members}
    if wat is not None:
        (place / "agent.wasm").write_bytes(wat2wasm(wat))
        document = {"code": {"module": "agent.wasm", "abi": "command"}, **document}
    (place / "template.json").write_text(json.dumps(document))
    return place / "template.json"


def run(path: Path, text: str = "", **changes: Any) -> LocalRun:
    arguments: dict[str, Any] = {
        "text": text,
        "config": {},
        "granted": frozenset(),
        "parents": (),
        "image": None,
        "tell": lambda _line: None,
        **changes,
    }
    return run_template(path, **arguments)


def test_it_answers_with_a_receipt_and_says_that_it_is_unsigned(tmp_path: Path) -> None:
    found = run(write(tmp_path), "héllo")
    assert (found.output, found.failure) == ("héllo", None)
    assert found.to_json()["signed"] is False
    assert found.usage["fuel"] > 0
    assert found.usage["input_bytes"] == 6


@pytest.mark.parametrize(
    ("wat", "kind"),
    [
        (guests.SPINNER, "FUEL: expected at most 1000000"),
        (guests.HOG, "MEMORY"),
        (guests.FLOODER, "OUTPUT"),
        (guests.sleeper(60_000_000_000), "DEADLINE: expected an answer within 2000 ms"),
        (guests.EXIT_7, "GUEST_ERROR"),
        (guests.UNREACHABLE, "TRAP"),
    ],
)
def test_a_failure_is_typed_as_on_a_node(tmp_path: Path, wat: str, kind: str) -> None:
    fuel = 1_000_000 if wat == guests.SPINNER else 50_000_000
    limits = {"fuel": fuel, "wall_ms": 2_000, "memory_bytes": 16 << 20, "output_bytes": 65_536}
    found = run(write(tmp_path, wat=wat, limits=limits))
    assert found.output is None
    assert found.failure is not None
    assert found.failure.startswith(kind)


@pytest.mark.parametrize("too_many", [0, 1])
def test_a_log_that_was_cut_is_said_to_be(tmp_path: Path, too_many: int, capsys: pytest.CaptureFixture[str]) -> None:
    is_cut = too_many > 0
    found = run(write(tmp_path, wat=guests.say(2, b"x" * (LOG_LINE_BYTES_MAX + too_many))))
    assert found.to_json()["logs_cut"] is is_cut
    show_run(found, ())
    assert (LOG_CUT in capsys.readouterr().err) is is_cut
    assert f"{LOG_LINE_BYTES_MAX:,} bytes a line" in LOG_CUT


def test_only_the_grants_named_on_the_command_line_are_carried_out(tmp_path: Path) -> None:
    path = write(tmp_path, wat=PUT, grants=KV)
    denied = run(path)
    assert json.loads(denied.output or "")["error"]["kind"] == "denied"
    allowed = run(path, granted=frozenset({"kv"}))
    assert json.loads(allowed.output or "") == {"ok": {"version": 1}}
    with pytest.raises(LocalGrantError, match=r"dev/greedy@1.0.0 asks for \(none\), got kv"):
        run(write(tmp_path, "greedy", PUT), granted=frozenset({"kv"}))


def test_schemas_hold_as_on_a_node(tmp_path: Path) -> None:
    wants_n = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 3}}}
    path = write(tmp_path, config_schema=wants_n, input_schema=wants_n, output_schema={"required": ["n"]})
    assert run(path, '{"n": 1}', config={"n": 2}).output == '{"n": 1}'
    with pytest.raises(ConfigMismatchError, match="/n"):
        run(path, '{"n": 1}', config={"n": 4})
    with pytest.raises(InputMismatchError, match="/n"):
        run(path, '{"n": 4}')
    with pytest.raises(InputMismatchError, match="INVALID_JSON"):
        run(path, "no JSON")
    with pytest.raises(InputMismatchError, match="DUPLICATE_KEY"):
        run(path, '{"n": 1, "n": 2}')
    found = run(path, "{}")
    assert found.output is None
    assert found.failure is not None
    assert found.failure.startswith("OUTPUT: output: ")


def test_the_command_takes_a_folder_for_the_template_in_it(tmp_path: Path) -> None:
    document = write(tmp_path)
    for place in (document.parent, document):
        done = agentctl(tmp_path, "template", "run", str(place), "--input", "hello")
        assert (done.status, done.data["output"]) == (0, "hello"), done.errors
    done = agentctl(tmp_path, "template", "run", str(tmp_path), "--input", "hello")
    assert done.status == 2
    assert "expected a template document" in done.errors


def test_parents_are_found_beside_it_or_by_name(tmp_path: Path) -> None:
    write(tmp_path, "base", None, limits={"input_bytes": 5})
    write(tmp_path, "middle", None, parent="dev/base")
    child = write(tmp_path, "child", parent="dev/middle")
    assert run(child, "12345").output == "12345"
    with pytest.raises(InputMismatchError, match="at most 5 bytes of input, got 6"):
        run(child, "123456")
    lonely = write(tmp_path / "a" / "b" / "c" / "d", "child", parent="dev/middle")
    with pytest.raises(LocalRunError, match=r"expected the parent dev/middle of dev/child@1\.0\.0; name its file"):
        run(lonely)
    named = [tmp_path / name / "template.json" for name in ("middle", "base")]
    assert run(lonely, "12345", parents=named).output == "12345"


def test_a_cycle_and_a_widened_limit_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "one", None, parent="dev/two")
    write(tmp_path, "two", None, parent="dev/one")
    with pytest.raises(InvalidTemplateError, match="INHERITANCE_CYCLE"):
        run(write(tmp_path, "three", parent="dev/one"))
    write(tmp_path, "link-0", None)
    for number in range(1, 10):
        write(tmp_path, f"link-{number}", None, parent=f"dev/link-{number - 1}")
    with pytest.raises(InvalidTemplateError, match="INHERITANCE_DEPTH"):
        run(write(tmp_path, "deep", parent="dev/link-9"))
    write(tmp_path, "base", None, limits={"fuel": 1_000_000})
    with pytest.raises(InvalidTemplateError, match="WIDENED_LIMIT"):
        run(write(tmp_path, "wide", parent="dev/base", limits={"fuel": 1_000_001}))


def _not_wasm(path: Path) -> None:
    (path.parent / "agent.wasm").write_bytes(b"hello, world")


def _gone(path: Path) -> None:
    (path.parent / "agent.wasm").unlink()


def _abstract(path: Path) -> None:
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "code"}))


def _source(path: Path) -> None:
    path.write_text(
        path.read_text().replace('"module": "agent.wasm", "abi": "command"', '"source": "a.py", "image": "xx"')
    )
    (path.parent / "a.py").write_text("")


def _broken(path: Path) -> None:
    path.write_text("{")


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        (_not_wasm, ModuleRefusedError, "NOT_WASM"),
        (_gone, CodeFileError, "agent.wasm"),
        (_abstract, LocalRunError, "abstract"),
        (_source, LocalRunError, "make images"),
        (_broken, InvalidFileError, "template.json:1:2: INVALID_JSON"),
    ],
)
def test_what_cannot_run_is_refused_by_name(
    tmp_path: Path, change: Callable[[Path], None], kind: type[AgentFactoryError], says: str
) -> None:
    path = write(tmp_path)
    change(path)
    with pytest.raises(kind, match=says):
        run(path)


def test_a_damaged_compile_cache_is_compiled_again(tmp_path: Path, home: Path) -> None:
    path, told = write(tmp_path), list[str]()
    cache = home / ".cache" / "agentfactory"
    for damage in (_nothing, _nothing, lambda: _flip(cache), lambda: (cache / "key").write_bytes(b"")):
        damage()
        assert run(path, "x", tell=told.append).output == "x"
    assert len(told) == 3, "compiled at first, after the flipped byte, and with the new key"
    assert (cache / "key").stat().st_mode & 0o777 == 0o600


def _nothing() -> None:
    """Once more as it is."""


def _flip(cache: Path) -> None:
    (entry,) = (cache / "compiled").glob("*.compiled")
    data = bytearray(entry.read_bytes())
    data[len(data) // 2] ^= 1
    entry.write_bytes(data)


def test_reasons_are_those_of_a_node() -> None:
    assert (ConfigMismatchError.reason, InputMismatchError.reason) == (Reason.CONFIG_MISMATCH, Reason.INPUT)
