"""Agents, access and JSON as values; who may call which service."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_plane.agents.access import ServiceAccess
from data_plane.agents.agent import (
    AgentName,
    merged_config,
    request_digest,
    require_agent_id,
    require_object,
    require_request_id,
)
from data_plane.agents.json_text import parse_json
from data_plane.agents.refusals import InvalidRequestError, UnknownTemplateError
from templates.names import InvalidNameError, TemplateName

NOTES = TemplateName("docs", "notes")


def test_names_of_agents_are_read_whole() -> None:
    name = AgentName.parse("nodes/n1.eu/agents/a-1")
    assert (name.node, name.agent_id) == ("n1.eu", "a-1")
    assert str(name) == "nodes/n1.eu/agents/a-1"


@pytest.mark.parametrize(
    "text",
    ["", "a-1", "nodes//agents/a", "nodes/n1/agents/", "nodes/n1/agents/A", "nodes/n1/agents/a/b", "nodes/n1/agents/a ",
     "nodes/n1/agents/a\n", "/nodes/n1/agents/a", "nodes/../agents/a", "nodes/n1/agents/" + "a" * 64],
)  # fmt: skip
def test_anything_else_is_no_name(text: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        AgentName.parse(text)
    assert refused.value.metadata == {"field": "name"}


def test_ids_have_a_grammar() -> None:
    assert require_agent_id("0-a") == "0-a"
    for text in ("-a", "a_b", "é", "a" * 64, ""):
        with pytest.raises(InvalidRequestError):
            require_agent_id(text)
    assert require_request_id("any text: ok") == "any text: ok"
    for text in ("x" * 129, "a\nb"):
        with pytest.raises(InvalidRequestError):
            require_request_id(text)


def test_the_same_request_has_the_same_digest_and_others_have_not() -> None:
    first = request_digest(template=NOTES, agent_id="a", config=b"{}")
    assert first == request_digest(template=NOTES, agent_id="a", config=b"{}")
    others = {
        request_digest(template=TemplateName("docs", "other"), agent_id="a", config=b"{}"),
        request_digest(template=NOTES, agent_id="", config=b"{}"),
        request_digest(template=NOTES, agent_id="a", config=b'{"a":1}'),
    }
    assert len(others | {first}) == 4


def test_configurations_merge_member_by_member() -> None:
    defaults = {"a": 1, "deep": {"x": 1, "y": [1]}, "list": [1, 2]}
    own = {"deep": {"y": [2], "z": None}, "list": [], "b": {}}
    assert merged_config(defaults, own) == {"a": 1, "deep": {"x": 1, "y": [2], "z": None}, "list": [], "b": {}}  # type: ignore[arg-type]
    assert defaults == {"a": 1, "deep": {"x": 1, "y": [1]}, "list": [1, 2]}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON), st.dictionaries(st.text(), JSON))
def test_merging_keeps_every_own_member(defaults: dict[str, object], own: dict[str, object]) -> None:
    merged = merged_config(defaults, own)  # type: ignore[arg-type]
    assert merged.keys() == defaults.keys() | own.keys()
    assert merged_config(merged, own) == merged  # type: ignore[arg-type]
    assert merged_config({}, own) == own  # type: ignore[arg-type]


def test_a_configuration_is_an_object() -> None:
    assert require_object({"a": 1}) == {"a": 1}
    with pytest.raises(InvalidRequestError, match="list"):
        require_object([])


@given(JSON)
def test_json_is_read_as_it_is(value: object) -> None:
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "JSON"),
        ("{", "line 1"),
        ('{"a": NaN}', "NaN"),
        ("[-Infinity]", "Infinity"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' twice"),
        ("[" * 66 + "]" * 66, "levels"),
        ("[" * 100_000, "levels"),
        ('{"a":' * 66 + "1" + "}" * 66, "levels"),
    ],
)
def test_json_that_could_be_read_in_two_ways_or_is_too_deep_is_refused(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        parse_json(text)


def test_json_at_the_depth_limit_is_read() -> None:
    text = "[" * 64 + "]" * 64
    assert json.dumps(parse_json(text)) == text


def test_without_settings_every_service_may_use_every_template() -> None:
    assert ServiceAccess({}).permits("anyone", NOTES)


def test_once_set_a_tenant_uses_what_it_was_given_and_others_nothing() -> None:
    access = ServiceAccess({"acme": ["docs/notes", "legal/*"], "all": ["*/*"], "none": []})
    assert access.permits("acme", NOTES)
    assert access.permits("acme", TemplateName("legal", "any"))
    assert not access.permits("acme", TemplateName("docs", "other"))
    assert access.permits("all", NOTES)
    assert not access.permits("none", NOTES)
    assert not access.permits("docs", NOTES)


def test_a_wrong_pattern_stops_the_node() -> None:
    with pytest.raises(InvalidNameError):
        ServiceAccess({"acme": ["*"]})


def test_an_unknown_template_is_answered_with_neighbours() -> None:
    error = UnknownTemplateError("docs/note", known=["docs/notes", "legal/review"])
    assert error.metadata["nearest"] == "docs/notes"
    assert UnknownTemplateError("x", known=[]).metadata["nearest"] == ""
