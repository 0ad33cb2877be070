"""A profile is written and read back; what is not one is refused."""

import json
from pathlib import Path

import pytest

from client.profile import Profile, ProfileError, read_profile


def _profile(directory: Path) -> Profile:
    return Profile(
        directory=directory,
        control_plane="localhost:1",
        nodes={"n": "localhost:2"},
        observation={"n": "127.0.0.1:3"},
        identities={"alice": directory / "identities" / "alice"},
        signing_keys={"alice": directory / "keys" / "alice.pem"},
        passphrase_files={"alice": Path("/elsewhere/passphrase")},
        person="alice",
        service="cli",
    )


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    written = _profile(tmp_path)
    written.write()
    assert read_profile(tmp_path) == written


def test_paths_inside_the_directory_move_with_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    _profile(tmp_path / "a").write()
    (tmp_path / "a").rename(tmp_path / "b")
    moved = read_profile(tmp_path / "b")
    assert moved.signing_keys["alice"] == tmp_path / "b" / "keys" / "alice.pem"
    assert moved.passphrase_files["alice"] == Path("/elsewhere/passphrase")


def test_an_unknown_identity_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"\(alice\), got 'mallory'"):
        _profile(tmp_path).tls("mallory")


def test_an_identity_is_three_files(tmp_path: Path) -> None:
    files = _profile(tmp_path).tls("alice")
    assert (files.certificate.name, files.key.name, files.authorities.name) == ("cert.pem", "key.pem", "ca.pem")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected a JSON profile"),
        ("{}", "expected schema 1"),
        (json.dumps({"schema": 2}), "expected schema 1"),
        (json.dumps({"schema": 1}), "expected the fields"),
        (json.dumps({"schema": 1, "control_plane": "x", "nodes": 3, "identities": {}}), "expected the fields"),
    ],
)
def test_refuses_what_is_not_a_profile(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "profile.json").write_text(content)
    with pytest.raises(ProfileError, match=message):
        read_profile(tmp_path)


def test_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"agentctl --dir .* up"):
        read_profile(tmp_path)
