"""The exports of the attack suite: what was changed in them is found, by its name."""

from pathlib import Path

import pytest

from client.selftest.exports import Exports


def test_as_they_were_made_nothing_differs(tmp_path: Path) -> None:
    exports = Exports.make(tmp_path)
    assert exports.differences() == []
    assert len(set(exports.canaries.values())) == 2


@pytest.mark.parametrize(
    ("path", "difference"),
    [
        ("mine/hello", "hello has changed"),
        ("mine/made", "unexpected made"),
        ("outside/canary", "the file outside has changed"),
        ("outside/new", "the names outside have changed"),
    ],
)
def test_what_was_written_is_found(tmp_path: Path, path: str, difference: str) -> None:
    exports = Exports.make(tmp_path)
    (tmp_path / path).write_text("x")
    assert exports.differences() == [difference]


def test_what_is_gone_is_found(tmp_path: Path) -> None:
    exports = Exports.make(tmp_path)
    (tmp_path / "mine" / "hello").unlink()
    (tmp_path / "mine" / "link").unlink()
    assert exports.differences() == ["hello has changed", "link is missing"]
