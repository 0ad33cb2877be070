"""The attacks themselves: how many there are, that each says what it is, and that they are found by name."""

from pathlib import Path

import pytest

from client.selftest.attack import AttackClass, Case, template_names
from client.selftest.catalogue import UnknownAttackError, all_cases, chosen

CASES = all_cases()


def test_there_are_as_many_as_the_documentation_says_in_every_class() -> None:
    documented = (Path(__file__).parents[4] / "docs" / "selftest.md").read_text(encoding="utf-8")
    assert f"{len(CASES)} attacks in {len(AttackClass)} classes" in documented
    assert [line.split("`")[1] for line in documented.splitlines() if line.startswith("| `")] == list(AttackClass)
    assert {case.attack_class for case in CASES} == set(AttackClass)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_says_what_is_tried_its_source_and_what_is_expected(case: Case) -> None:
    assert case.summary.endswith((".", ":", "?"))
    assert "Source: " in case.text
    assert "Expected: " in case.text


def test_names_are_unique_and_every_guest_has_a_template_of_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert len(template_names(CASES)) == sum(len(case.attack.guests) for case in CASES)


def test_some_are_chosen_by_class_and_by_name() -> None:
    assert {case.attack_class for case in chosen(CASES, classes=["output"])} == {AttackClass.OUTPUT}
    assert [case.name for case in chosen(CASES, names=["endless_loop"])] == ["endless_loop"]
    assert chosen(CASES, classes=["output"], names=["endless_loop"]) == ()
    assert chosen(CASES) == CASES
    with pytest.raises(UnknownAttackError, match="did you mean endless_loop"):
        chosen(CASES, names=["endles_loop"])
