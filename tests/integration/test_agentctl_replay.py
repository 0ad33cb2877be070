"""agentctl records an invocation of a real factory and replays it, with the module from wherever it can be had."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.factory import ECHO, Factory, agentctl, running_factory, write_template

READER = """(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start") (local $i i32)
    (drop (call $random (i32.const 64) (i32.const 16)))
    (drop (call $clock (i32.const 0) (i64.const 1) (i32.const 80)))
    (loop $letters
      (i32.store8 (i32.add (i32.const 64) (local.get $i))
        (i32.add (i32.const 97) (i32.and (i32.load8_u (i32.add (i32.const 64) (local.get $i))) (i32.const 15))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $letters (i32.lt_u (local.get $i) (i32.const 24))))
    (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 24))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"""
"""Writes 24 letters made of randomness and the time."""


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Factory]:
    with running_factory(tmp_path_factory.mktemp("factory") / "installation") as factory:
        for name, wat in (("reader", READER), ("echo", ECHO)):
            template = write_template(tmp_path_factory.mktemp(name) / name, name, wat, limits={"input_bytes": 64})
            done = factory.publish(template, "alice")
            assert done.status == 0, done.errors
            factory.wait_active(done.data["generation"])
            (factory.directory / f"{name}.wasm").write_bytes((template.parent / "agent.wasm").read_bytes())
        yield factory


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory without a profile, for a user who has compiled nothing yet."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "nowhere"


@pytest.fixture
def recording(factory: Factory, tmp_path: Path) -> Path:
    path = tmp_path / "one.recording"
    done = factory.ctl("agent", "invoke", "dev/reader", "", "--record", str(path))
    assert done.status == 0, done.errors
    assert "agentctl replay" in done.errors
    return path


def test_an_invocation_is_recorded_and_replayed_offline(factory: Factory, recording: Path, nowhere: Path) -> None:
    assert recording.stat().st_mode & 0o777 == 0o600
    done = agentctl(nowhere, "replay", str(recording), "--module", str(factory.directory / "reader.wasm"))
    assert done.status == 0, done.errors
    assert done.data["identical"] is True
    assert done.data["fuel"]["recorded"] == done.data["fuel"]["replayed"]
    assert done.data["fuel"]["compared"] is True
    assert done.data["output_sha256"]["recorded"] == done.data["output_sha256"]["replayed"]
    again = agentctl(nowhere, "replay", str(recording))  # compiled code is kept by digest
    assert again.status == 0, again.errors


def test_the_module_is_found_by_its_digest_in_a_directory_or_asked_of_the_control_plane(
    factory: Factory, recording: Path, nowhere: Path
) -> None:
    missing = agentctl(nowhere, "replay", str(recording))
    assert missing.status == 6
    assert "LOCAL_RUN_IMPOSSIBLE" in missing.errors
    assert "--module" in missing.errors
    other = agentctl(nowhere, "replay", str(recording), "--module", str(factory.directory / "echo.wasm"))
    assert other.status == 6
    fetched = factory.ctl("replay", str(recording))
    assert fetched.status == 0, fetched.errors
    assert "asking the control plane" in fetched.errors


def test_a_directory_of_modules_is_looked_through(factory: Factory, recording: Path, nowhere: Path) -> None:
    done = agentctl(nowhere, "replay", str(recording), "--code", str(factory.directory))
    assert done.status == 0, done.errors


def test_a_difference_has_exit_status_1_and_is_named(factory: Factory, recording: Path, nowhere: Path) -> None:
    document = json.loads(recording.read_bytes())
    document["seed"] = "00" * 32
    recording.write_text(json.dumps(document))
    done = agentctl(nowhere, "replay", str(recording), "--module", str(factory.directory / "reader.wasm"))
    assert done.status == 1
    assert done.data["identical"] is False
    assert done.data["first_difference"]["what"] == "output"


def test_a_recording_is_fetched_later_and_under_a_passphrase(factory: Factory, nowhere: Path, tmp_path: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse battery staple\n")
    secret.chmod(0o600)
    first, second = tmp_path / "first", tmp_path / "second"
    made = factory.ctl("agent", "invoke", "dev/reader", "", "--record", str(first), "--passphrase-file", str(secret))
    invocation = made.data["receipt"]["invocation_id"]
    assert b"dev/reader" not in first.read_bytes()
    fetched = factory.ctl("recording", "fetch", invocation, "--file", str(second))
    assert fetched.status == 0, fetched.errors
    (listed,) = [each for each in factory.ctl("invocation", "list").data if each["invocation_id"] == invocation]
    assert listed["has_recording"] is True
    module = ("--module", str(factory.directory / "reader.wasm"))
    assert agentctl(nowhere, "replay", str(first), *module).status == 3
    assert agentctl(nowhere, "replay", str(first), *module, "--passphrase-file", str(secret)).status == 0
    assert agentctl(nowhere, "replay", str(second), *module).status == 0
    secret.write_text("another\n")
    locked = agentctl(nowhere, "replay", str(first), *module, "--passphrase-file", str(secret))
    assert locked.status == 8
    assert "RECORDING_DAMAGED" in locked.errors


def test_recordings_are_listed_and_deleted(factory: Factory, tmp_path: Path) -> None:
    made = factory.ctl("agent", "invoke", "dev/reader", "", "--record", str(tmp_path / "one"))
    invocation = made.data["receipt"]["invocation_id"]
    newest = factory.ctl("recording", "list", "--count", "1").data
    assert [each["invocation_id"] for each in newest] == [invocation]
    assert (newest[0]["outcome"], newest[0]["template"].partition("@")[0]) == ("OK", "dev/reader")
    assert factory.ctl("recording", "delete", invocation).status == 0
    assert invocation not in [each["invocation_id"] for each in factory.ctl("recording", "list").data]
    again = factory.ctl("recording", "delete", invocation)
    assert again.status == 4
    assert "UNKNOWN_RECORDING" in again.errors


def test_what_was_not_recorded_is_not_found_and_what_is_no_recording_is_refused(
    factory: Factory, nowhere: Path, tmp_path: Path
) -> None:
    plain = factory.ctl("agent", "invoke", "dev/echo", "x").data["receipt"]["invocation_id"]
    missing = factory.ctl("recording", "fetch", plain, "--file", str(tmp_path / "none"))
    assert missing.status == 4
    assert "UNKNOWN_RECORDING" in missing.errors
    assert not (tmp_path / "none").exists()
    junk = tmp_path / "junk"
    junk.write_text("{}")
    assert agentctl(nowhere, "replay", str(junk)).status == 3


def test_a_refused_input_has_no_recording_and_the_refusal_is_what_is_said(factory: Factory, tmp_path: Path) -> None:
    done = factory.ctl("agent", "invoke", "dev/echo", "x" * 65, "--record", str(tmp_path / "none"))
    assert done.status == 3
    assert "INPUT" in done.errors
    assert not (tmp_path / "none").exists()
