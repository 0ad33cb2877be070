"""`agentctl template test`: the template's own examples in the real sandbox, and exit 1 when an answer differs."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from client.agentctl.commands.template import template as group
from client.agentctl.exit_codes import ExitCode
from sandbox.engine import wat2wasm
from tests.isolation import guests


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def write(folder: Path, examples: list[dict[str, Any]], wat: str = guests.ECHO) -> Path:
    document = {
        "schema": 1, "domain": "dev", "name": "echo", "version": "1.0.0", "examples": examples,
        "code": {"module": "agent.wasm", "abi": "command"},
    }  # fmt: skip
    (folder / "agent.wasm").write_bytes(wat2wasm(wat))
    (folder / "template.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def test_examples_that_hold_exit_0(tmp_path: Path) -> None:
    folder = write(tmp_path, [{"input": "one", "output": "one"}, {"input": "only that it answers"}])
    done = CliRunner().invoke(group, ["test", str(folder)])
    assert done.exit_code == 0, done.output
    assert "example 2: ok" in done.output


def test_another_answer_exits_1_and_shows_both(tmp_path: Path) -> None:
    folder = write(tmp_path, [{"input": "one", "output": "two"}])
    done = CliRunner().invoke(group, ["test", str(folder)])
    assert done.exit_code == ExitCode.FINDINGS
    assert "-two" in done.output
    assert "+one" in done.output


def test_a_failing_agent_exits_1_with_its_failure(tmp_path: Path) -> None:
    folder = write(tmp_path, [{"input": "x"}], guests.EXIT_7)
    done = CliRunner().invoke(group, ["test", str(folder)])
    assert done.exit_code == ExitCode.FINDINGS
    assert "expected exit code 0, got 7" in done.output
