"""The table of threats and the attacks that carry them out: nothing stands there that does not exist, and no less."""

import re
from pathlib import Path

import pytest

from client.selftest.catalogue import all_cases

ROOT = Path(__file__).parents[4]
ROWS = [
    (threat, re.findall(r"`([^`]+)`", cell), cell)
    for threat, cell in re.findall(
        r"^\| (?!Threat|-)(.+?) \| (.+) \|$", (ROOT / "docs" / "threats.md").read_text(encoding="utf-8"), re.MULTILINE
    )
]
NAMES = {case.name for case in all_cases()}


@pytest.mark.parametrize(("threat", "named", "cell"), ROWS, ids=[threat for threat, _, _ in ROWS])
def test_a_threat_is_carried_out_by_what_exists(threat: str, named: list[str], cell: str) -> None:
    for each in named:
        assert each in NAMES or (each.startswith("tests/") and (ROOT / each).is_file()), f"{threat}: {each}"
    assert (
        set(named) & NAMES
        or len(re.sub(r"`[^`]+`|[,; ]", "", cell)) > 20
        or all(each.startswith("tests/") for each in named)
    ), f"expected an attack on {threat}, or where it is tried instead"
    assert named or "not built yet" in cell, f"expected an attack on {threat}, a test of it, or that it does not exist"


def test_every_attack_is_an_answer_to_a_threat() -> None:
    assert NAMES - {each for _, named, _ in ROWS for each in named} == set()


def test_every_threat_stands_there_once() -> None:
    threats = [threat for threat, _, _ in ROWS]
    assert len(threats) == len(set(threats))
    assert len(threats) > 80
