import json
from pathlib import Path

import pytest
from hypothesis import given

from templates.limits import DEFAULT_LIMITS, LIMIT_CEILINGS, LIMIT_NAMES, Limits, least
from tests.unit.templates import documents


def test_absent_limits_are_those_of_the_base() -> None:
    assert Limits.from_json({}) == DEFAULT_LIMITS
    assert Limits.from_json({"fuel": 5}).wall_ms == DEFAULT_LIMITS.wall_ms
    assert Limits.from_json({"fuel": 5}, base=LIMIT_CEILINGS).wall_ms == LIMIT_CEILINGS.wall_ms


@pytest.mark.parametrize("name", LIMIT_NAMES)
def test_one_more_of_anything_is_beyond(name: str) -> None:
    wider = Limits(**{**DEFAULT_LIMITS.amounts(), name: DEFAULT_LIMITS.amounts()[name] + 1})
    assert wider.beyond(DEFAULT_LIMITS) == (name,)
    assert not wider.is_within(DEFAULT_LIMITS)
    assert DEFAULT_LIMITS.is_within(wider)
    assert wider.narrowed_by(DEFAULT_LIMITS) == DEFAULT_LIMITS


def test_the_defaults_are_within_the_ceilings_and_the_schema_states_the_ceilings() -> None:
    assert DEFAULT_LIMITS.is_within(LIMIT_CEILINGS)
    schema = json.loads(Path("templates/template.schema.json").read_text(encoding="utf-8"))["$defs"]["limits"]
    assert {name: each["maximum"] for name, each in schema["properties"].items()} == LIMIT_CEILINGS.amounts()


@given(documents.limits, documents.limits, documents.limits)
def test_narrowing_is_a_minimum(first: Limits, second: Limits, third: Limits) -> None:
    narrowed = first.narrowed_by(second)
    assert narrowed.is_within(first)
    assert narrowed.is_within(second)
    assert narrowed == second.narrowed_by(first)
    assert narrowed.narrowed_by(third) == first.narrowed_by(second.narrowed_by(third))
    assert first.narrowed_by(first) == first
    assert first.is_within(second) == (narrowed == first)


OLD = ("fuel", "wall_ms", "memory_bytes", "input_bytes", "output_bytes", "log_bytes", "host_calls")


def test_a_document_from_before_the_later_amounts_keeps_its_bytes_and_means_the_defaults() -> None:
    document = {name: getattr(DEFAULT_LIMITS, name) for name in OLD}
    assert Limits(**document).to_json() == document
    assert Limits(**document).tokens == DEFAULT_LIMITS.tokens


def test_a_later_amount_is_said_where_it_differs_and_only_there() -> None:
    assert Limits.from_json({"tokens": 5}).to_json() == {**DEFAULT_LIMITS.to_json(), "tokens": 5}
    assert "tokens" not in Limits.from_json({"tokens": DEFAULT_LIMITS.tokens}).to_json()
    assert set(DEFAULT_LIMITS.to_json()) == set(OLD)


@given(documents.limits)
def test_what_a_document_says_is_what_was_meant(limits: Limits) -> None:
    assert Limits(**limits.to_json()) == limits


@pytest.mark.parametrize("name", LIMIT_NAMES)
@pytest.mark.parametrize(
    ("node", "tenant", "agent", "caller", "effective"),
    [
        (None, None, None, None, 100_000),
        (90_000, None, None, None, 90_000),
        (None, 80_000, None, None, 80_000),
        (None, None, 70_000, None, 70_000),
        (None, None, None, 66_000, 66_000),
        (90_000, 80_000, 70_000, 66_000, 66_000),
        (66_000, 70_000, 80_000, 90_000, 66_000),
        (70_000, 66_000, 90_000, 80_000, 66_000),
        (80_000, 90_000, 66_000, 70_000, 66_000),
        (200_000, 200_000, 200_000, 200_000, 100_000),
        (0, None, None, 100_000, 0),
    ],
)
def test_of_each_amount_the_least_that_anybody_says_is_effective(
    name: str, node: int | None, tenant: int | None, agent: int | None, caller: int | None, effective: int
) -> None:
    template = Limits(**dict.fromkeys(LIMIT_NAMES, 100_000))
    ceilings = [{} if amount is None else {name: amount} for amount in (node, tenant, agent, caller)]
    assert least(template, *ceilings).amounts() == {**template.amounts(), name: effective}
