"""What is printed cannot command a terminal, and tables line up."""

import json

import click
import pytest
from click.testing import CliRunner

from client.agentctl import output
from client.agentctl.inputs import read_input


def _run(*arguments: str) -> tuple[str, str]:
    @click.command()
    @click.option("-o", "--output", default="table")
    def command(**_options: str) -> None:
        output.emit_table([{"a": "x", "b": None}, {"a": "\x1b[31mred", "b": True}], ("a", "b"))

    result = CliRunner().invoke(command, list(arguments))
    return result.stdout, result.stderr


@pytest.mark.parametrize("text", ["\x1b[31m", "\r", "\x00", "\x9b", "\x7f"])
def test_control_characters_are_escaped(text: str) -> None:
    assert output.printable(f"a{text}b").isprintable()


@pytest.mark.parametrize("text", ["\u202e", "\u2066", "\u200b", "\u061c", "\ufeff", "\u2028", "\U000e0041", "\u2069"])
def test_text_that_would_read_otherwise_than_it_runs_is_escaped(text: str) -> None:
    shown = output.printable(f"a{text}b")
    assert text not in shown
    assert f"{ord(text):04x}" in shown


@pytest.mark.parametrize("text", ["\u202e", "\x9b", "\x7f", "\U000e0041", "\x1b", "\u00e9\u202f"])
def test_json_holds_the_same_text_and_nothing_that_steers(text: str) -> None:
    @click.command()
    @click.option("-o", "--output", default="json")
    def command(**_options: str) -> None:
        output.emit({"a": f"x{text}y"})

    stdout = CliRunner().invoke(command, []).stdout
    assert json.loads(stdout) == {"a": f"x{text}y"}
    assert text in stdout if text.startswith("\u00e9") else text not in stdout


def test_lines_and_tabs_stay() -> None:
    assert output.printable("a\n\tb é") == "a\n\tb é"


def test_a_table_shows_nothing_dangerous() -> None:
    stdout, _ = _run()
    assert stdout.splitlines()[0].split() == ["A", "B"]
    assert len({line.rstrip().rfind("  ") for line in stdout.splitlines()}) == 1
    assert "\x1b" not in stdout
    assert "-" in stdout
    assert "yes" in stdout


def test_json_is_an_array() -> None:
    stdout, _ = _run("-o", "json")
    assert json.loads(stdout)[0] == {"a": "x", "b": None}


def test_input_is_an_argument_or_a_file(tmp_path: object) -> None:
    from pathlib import Path

    file = Path(str(tmp_path)) / "x"
    file.write_text("from the file")
    assert read_input("plain") == "plain"
    assert read_input(f"@{file}") == "from the file"


def test_input_that_cannot_be_read_is_refused(tmp_path: object) -> None:
    from pathlib import Path

    file = Path(str(tmp_path)) / "x"
    file.write_bytes(b"\xff")
    with pytest.raises(click.BadParameter, match="UTF-8"):
        read_input(f"@{file}")
    with pytest.raises(click.BadParameter, match="cannot read"):
        read_input(f"@{file}.missing")
