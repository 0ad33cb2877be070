"""Settings that `agentctl up` hands to its nodes: what is kept, changed, taken away, and what nobody may say."""

import json
from pathlib import Path

import pytest

from client.installation import InvalidInstallationError
from client.node_settings import FILE, changed_settings, environment_of, keep_settings, kept_settings
from templates.canonical import JsonObject


def test_settings_are_kept_for_later_starts_and_for_their_owner_alone(tmp_path: Path) -> None:
    assert kept_settings(tmp_path) == {}
    settings: JsonObject = {"worker_idle_s": 2.5, "file_exports": {"scratch": {}}}
    keep_settings(tmp_path, settings)
    assert kept_settings(tmp_path) == settings
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["[]", "{", '{"a": 1, "a": 2}', "\xff"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text, encoding="latin-1")
    with pytest.raises(InvalidInstallationError, match=FILE):
        kept_settings(tmp_path)


def test_what_is_given_replaces_what_was_kept_and_null_takes_it_away() -> None:
    kept: JsonObject = {"spare_workers": 2, "worker_idle_s": 5}
    given = {"AGENTFACTORY_NODE_SPARE_WORKERS": 3, "worker_idle_s": None, "log_level": "debug"}
    assert changed_settings(kept, given, ()) == {"spare_workers": 3, "log_level": "debug"}
    assert changed_settings(kept, {}, ()) == kept


def test_private_origins_are_added_to_those_that_there_are() -> None:
    kept: JsonObject = {"private_origins": {"http://a.example:1": ["10.0.0.0/8"]}}
    more = [("http://b.example:2", "127.0.0.1/32"), ("http://a.example:1", "10.0.0.0/8"), ("http://a.example:1", "::1")]
    assert changed_settings(kept, {}, more) == {
        "private_origins": {"http://a.example:1": ["10.0.0.0/8", "::1"], "http://b.example:2": ["127.0.0.1/32"]}
    }
    assert changed_settings({}, {}, more[:1]) == {"private_origins": {"http://b.example:2": ["127.0.0.1/32"]}}


@pytest.mark.parametrize("name", ["", "a b", "PATH=1", "../x", "_x"])
def test_names_that_are_no_settings_are_refused(name: str) -> None:
    with pytest.raises(InvalidInstallationError):
        changed_settings({}, {name: 1}, ())


def test_values_become_what_variables_hold() -> None:
    settings: JsonObject = {
        "file_exports": {"a": {"path": "/é"}},
        "log_level": "debug",
        "spare_workers": 0,
        "worker_idle_s": 1.5,
    }
    found = environment_of(settings, reserved=())
    assert json.loads(found["AGENTFACTORY_NODE_FILE_EXPORTS"]) == {"a": {"path": "/é"}}
    assert [found[f"AGENTFACTORY_NODE_{name}"] for name in ("LOG_LEVEL", "SPARE_WORKERS", "WORKER_IDLE_S")] == [
        "debug", "0", "1.5",
    ]  # fmt: skip


def test_what_makes_a_node_one_of_the_installation_cannot_be_said() -> None:
    with pytest.raises(InvalidInstallationError, match="STORE_DIRECTORY"):
        environment_of({"store_directory": "/tmp"}, reserved=("AGENTFACTORY_NODE_STORE_DIRECTORY",))
