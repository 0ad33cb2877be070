from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates.canonical import JsonObject
from templates.schemas import (
    EFFORT_MAX,
    SCHEMA_DEPTH_MAX,
    InvalidSchemaError,
    SchemaViolationError,
    Violation,
    check,
    compile_schema,
    pointer_of,
)
from tests.unit.templates.documents import json_values


def _doubling(levels: int) -> JsonObject:
    """Return a schema of a few lines that is evaluated 2 ** ``levels`` times for one value."""
    twice: dict[str, Any] = {f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": {**twice, f"d{levels}": {"type": "string"}}}


def _deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


REFUSALS = [
    ({"type": "strnig"}, "/type"),
    ({"minLength": -1}, "/minLength"),
    ({"properties": {"a": {"required": "b"}}}, "/properties/a/required"),
    ({"items": [{}]}, "/items"),
    ({"$ref": "https://example.com/schema"}, "/$ref"),
    ({"$ref": "file:///etc/passwd"}, "/$ref"),
    ({"$ref": "other.json"}, "/$ref"),
    ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, "/$ref"),
    ({"$ref": "#anchor"}, "/$ref"),
    ({"$ref": "#/$defs/nowhere"}, "/$ref"),
    ({"$ref": "#/$defs/%61", "$defs": {"a": {}}}, "/$ref"),
    ({"$ref": "#/default", "default": {"$ref": "#/default"}}, "/$ref"),
    ({"items": {"$dynamicRef": "#a"}}, "/items/$dynamicRef"),
    ({"$id": "https://example.com/"}, "/$id"),
    ({"$defs": {"a": {"$anchor": "x"}}}, "/$defs/a/$anchor"),
    ({"$schema": "http://json-schema.org/draft-07/schema#"}, "/$schema"),
    ({"$vocabulary": {}}, "/$vocabulary"),
    ({"dependencies": {"a": {"$ref": "#"}}}, "/dependencies"),
    ({"pattern": "(?=a)b"}, "/pattern"),
    ({"pattern": r"(a)\1"}, "/pattern"),
    ({"pattern": "("}, "/pattern"),
    ({"pattern": "(((a{100}){100}){100})"}, "/pattern"),
    ({"items": {"patternProperties": {"(?!a)": {}}}}, "/items/patternProperties/(?!a)"),
    ({"$ref": "#"}, ""),
    ({"allOf": [{"$ref": "#"}]}, ""),
    (_doubling(12), "/$defs/d4"),
    ({"items": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}}, "/items"),
    ({"properties": {"a": {"$ref": "#"}}, "additionalProperties": {"$ref": "#"}}, ""),
    ({"enum": list(range(EFFORT_MAX))}, ""),
    ({"items": {"allOf": [{"multipleOf": 0.1}] * 30}}, "/items"),
    (_deep(SCHEMA_DEPTH_MAX + 1), ""),
    ({"description": "x" * 65_536}, ""),
    ({"default": [0] * 4_000}, ""),
]


@pytest.mark.parametrize(("schema", "pointer"), REFUSALS, ids=lambda value: str(value)[:60])
def test_a_schema_that_could_do_harm_is_refused_with_its_place(schema: JsonObject, pointer: str) -> None:
    with pytest.raises(InvalidSchemaError) as refused:
        compile_schema(schema)
    pointers = [each.pointer for each in refused.value.violations]
    if schema in ({"$ref": "#"}, {"allOf": [{"$ref": "#"}]}):
        assert len(pointers) == 1  # any place of the circle will do
    else:
        assert pointers == [pointer]
    assert refused.value.reason == "INVALID_SCHEMA"
    assert all(len(each.message) <= 300 for each in refused.value.violations)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"$schema": "https://json-schema.org/draft/2020-12/schema"},
        {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "string"}}},
        {"properties": {"$ref": {"type": "string"}, "$id": {"type": "string"}}},
        {"enum": [{"$ref": "https://example.com/"}], "default": {"$id": "x"}},
        {"properties": {"children": {"items": {"$ref": "#"}}}},
        {"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}},
        {"pattern": r"^\p{L}+( \p{L}+)*$"},
        {"enum": list(range(500))},
        _deep(SCHEMA_DEPTH_MAX - 1),
    ],
    ids=lambda value: str(value)[:60],
)
def test_ordinary_schemas_are_compiled(schema: JsonObject) -> None:
    compile_schema(schema)


def test_every_problem_of_a_schema_is_reported() -> None:
    with pytest.raises(InvalidSchemaError) as refused:
        compile_schema({"type": "strnig", "items": {"minLength": -1, "pattern": "(?=a)"}, "$id": "x"})
    assert {each.pointer for each in refused.value.violations} == {
        "/type", "/items/minLength", "/items/pattern", "/$id",
    }  # fmt: skip


def test_every_violation_of_a_value_is_reported_with_its_place() -> None:
    schema = compile_schema(
        {"required": ["a"], "properties": {"b/c": {"type": "integer"}, "d": {"items": {"maxLength": 1}}}}
    )
    found = schema.violations({"b/c": "x", "d": ["long", "o", "long"]})
    assert {each.pointer for each in found} == {"", "/b~1c", "/d/0", "/d/2"}
    assert schema.violations({"a": 1}) == ()
    assert len(schema.violations({"a": 1, "d": ["long"] * 500}, count_max=7)) == 7


def test_a_large_value_is_judged_without_building_every_error() -> None:
    values: list[Any] = [1] * 100_000
    one = compile_schema({"items": {"type": "string"}}).violations(values)
    assert [each.pointer for each in one] == ["/0"]
    branches = compile_schema({"items": {"anyOf": [{"type": "string", "maxLength": n} for n in range(200)]}})
    assert [each.message for each in branches.violations(values)] == [
        "expected a value that fits, got one too large to say where not"
    ]
    assert branches.violations(["x"] * 100_000) == ()
    copied = compile_schema({"required": [f"k{number}" for number in range(900)]})
    assert len(copied.violations({"text": "x" * 1_000_000})) == 1


def test_a_value_that_does_not_fit_is_an_error_with_its_places() -> None:
    with pytest.raises(SchemaViolationError, match="at /n") as refused:
        check({"properties": {"n": {"type": "integer"}}}, {"n": "x" * 10_000})
    assert refused.value.violations[0].pointer == "/n"
    assert len(refused.value.message) < 2_000
    check({"properties": {"n": {"type": "integer"}}}, {"n": 1})
    assert str(Violation(pointer="", message="m")) == "m (at the top)"


def test_a_circle_through_the_value_ends() -> None:
    tree = compile_schema({"type": "object", "properties": {"children": {"items": {"$ref": "#"}}}})
    value: dict[str, Any] = {}
    for _ in range(30):
        value = {"children": [value]}
    assert tree.violations(value) == ()
    assert tree.violations({"children": [{"children": [1]}]})[0].pointer == "/children/0/children/0"


def test_pointers_are_escaped() -> None:
    assert pointer_of([]) == ""
    assert pointer_of(["a/b", 0, "~"]) == "/a~1b/0/~0"


keywords = st.sampled_from(["not", "items", "contains", "propertyNames", "if", "additionalProperties"])
schemas = st.recursive(
    st.booleans(),
    lambda inner: (
        st.dictionaries(keywords, inner, max_size=2)
        | st.fixed_dictionaries({"allOf": st.lists(inner, min_size=1, max_size=3)})
        | st.fixed_dictionaries({"properties": st.dictionaries(st.sampled_from("ab"), inner)})
    ),
    max_leaves=8,
).filter(lambda schema: isinstance(schema, dict))


@given(schemas, json_values)
def test_what_is_compiled_judges_as_the_library_does(schema: Any, value: Any) -> None:
    fits = jsonschema_rs.Draft202012Validator(schema).is_valid(value)
    assert (compile_schema(schema).violations(value) == ()) is fits


MEANINGFUL = [
    "type", "$ref", "items", "properties", "pattern", "allOf", "enum", "$defs", "$id", "required", "not", "multipleOf",
    "patternProperties", "dependentRequired", "prefixItems", "$schema",
]  # fmt: skip


@given(st.dictionaries(st.sampled_from(MEANINGFUL), json_values))
def test_any_json_is_compiled_or_refused_with_a_place(schema: JsonObject) -> None:
    try:
        compile_schema(schema)
    except InvalidSchemaError as error:
        assert error.violations  # noqa: PT017 - both outcomes are right
