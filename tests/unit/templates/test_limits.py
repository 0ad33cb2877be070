import json
from pathlib import Path

import pytest
from hypothesis import given

from templates.limits import DEFAULT_LIMITS, LIMIT_CEILINGS, LIMIT_NAMES, Limits
from tests.unit.templates import documents


def test_absent_limits_are_those_of_the_base() -> None:
    assert Limits.from_json({}) == DEFAULT_LIMITS
    assert Limits.from_json({"fuel": 5}).wall_ms == DEFAULT_LIMITS.wall_ms
    assert Limits.from_json({"fuel": 5}, base=LIMIT_CEILINGS).wall_ms == LIMIT_CEILINGS.wall_ms


@pytest.mark.parametrize("name", LIMIT_NAMES)
def test_one_more_of_anything_is_beyond(name: str) -> None:
    wider = Limits(**{**DEFAULT_LIMITS.to_json(), name: DEFAULT_LIMITS.to_json()[name] + 1})
    assert wider.beyond(DEFAULT_LIMITS) == (name,)
    assert not wider.is_within(DEFAULT_LIMITS)
    assert DEFAULT_LIMITS.is_within(wider)
    assert wider.narrowed_by(DEFAULT_LIMITS) == DEFAULT_LIMITS


def test_the_defaults_are_within_the_ceilings_and_the_schema_states_the_ceilings() -> None:
    assert DEFAULT_LIMITS.is_within(LIMIT_CEILINGS)
    schema = json.loads(Path("templates/template.schema.json").read_text(encoding="utf-8"))["$defs"]["limits"]
    assert {name: each["maximum"] for name, each in schema["properties"].items()} == LIMIT_CEILINGS.to_json()


@given(documents.limits, documents.limits, documents.limits)
def test_narrowing_is_a_minimum(first: Limits, second: Limits, third: Limits) -> None:
    narrowed = first.narrowed_by(second)
    assert narrowed.is_within(first)
    assert narrowed.is_within(second)
    assert narrowed == second.narrowed_by(first)
    assert narrowed.narrowed_by(third) == first.narrowed_by(second.narrowed_by(third))
    assert first.narrowed_by(first) == first
    assert first.is_within(second) == (narrowed == first)
