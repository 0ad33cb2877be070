"""Servers that agentctl starts get a chosen environment, not the user's."""

import json
import time
from pathlib import Path

import pytest

from client.processes import ServerProcess


def environment_of_child(directory: Path) -> dict[str, str]:
    log = directory / "child.log"
    child = ServerProcess(
        "child", "tests.environment_child", environment={"AGENTFACTORY_X": "1"}, log=log, observation="127.0.0.1:1"
    )
    child.start()
    until = time.monotonic() + 30
    while child.is_running():
        assert time.monotonic() < until
        time.sleep(0.01)
    environment: dict[str, str] = json.loads(log.read_text())
    return environment


def test_a_servers_log_is_json_alone_and_the_users_secrets_stay_with_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    environment = environment_of_child(tmp_path)
    assert environment["GRPC_VERBOSITY"] == "ERROR"
    assert environment["AGENTFACTORY_X"] == "1"
    assert "AWS_SECRET_ACCESS_KEY" not in environment


def test_who_wants_to_hear_grpc_is_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRPC_VERBOSITY", "DEBUG")
    assert environment_of_child(tmp_path)["GRPC_VERBOSITY"] == "DEBUG"
