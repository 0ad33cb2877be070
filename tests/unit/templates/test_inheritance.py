from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates.canonical import JsonObject
from templates.document import LeaseExpiry, Template
from templates.inheritance import DEPTH_MAX, ancestors_of, merge_config, parents_first, resolve
from templates.limits import DEFAULT_LIMITS
from templates.names import TemplateName
from templates.problems import InvalidTemplateError
from templates.resolved import ParentPin, ResolvedTemplate
from tests.unit.templates.documents import MODULE, SOURCE, codes, json_values, resolved, template

BASE = resolved(
    name="base",
    role="base",
    labels={"team": "docs", "tier": "one"},
    capabilities=["log", "read"],
    tools=["a"],
    default_config={"text": {"lang": "en", "size": 1}, "list": [1, 2]},
    grants={"kv": {"namespace": "notes", "bytes_max": 100}, "agents": ["documentation/*"]},
    limits={"fuel": 1_000, "wall_ms": 50},
    callers=["*/*"],
    on_lease_expiry="stop",
)


class Library:
    """Approved templates: by name in their newest version, by pin in any."""

    def __init__(self, *templates: ResolvedTemplate) -> None:
        self._templates = templates

    def newest(self, name: TemplateName) -> ResolvedTemplate | None:
        versions = [each for each in self._templates if each.ref.template_name == name]
        return max(versions, key=lambda each: each.ref.version, default=None)

    def pinned(self, pin: ParentPin) -> ResolvedTemplate | None:
        return next((each for each in self._templates if each.pin == pin), None)

    def ancestors(self, child: Template) -> tuple[ResolvedTemplate, ...]:
        return ancestors_of(child, newest=self.newest, pinned=self.pinned)


def test_a_child_is_its_parent_and_itself() -> None:
    child = resolved(
        BASE,
        code=SOURCE,
        labels={"tier": "two"},
        capabilities=["write", "log"],
        tools=["b"],
        default_config={"text": {"lang": "fr"}, "list": [3], "more": None},
        limits={"fuel": 500},
    )
    assert child.parent == BASE.pin
    assert child.role == "base"
    assert child.labels == {"team": "docs", "tier": "two"}
    assert child.capabilities == ("log", "read", "write")
    assert child.tools == ("a", "b")
    assert child.default_config == {"text": {"lang": "fr", "size": 1}, "list": [3], "more": None}
    assert child.limits.fuel == 500
    assert child.limits.wall_ms == 50
    assert child.on_lease_expiry is LeaseExpiry.STOP
    assert child.code == SOURCE


def test_rights_are_never_inherited() -> None:
    child = resolved(BASE)
    assert child.grants.to_json() == {}
    assert child.callers == ()


def test_without_a_parent_the_defaults_apply() -> None:
    alone = resolved()
    assert alone.limits == DEFAULT_LIMITS
    assert alone.on_lease_expiry is LeaseExpiry.CONTINUE
    assert alone.is_abstract


def test_code_and_schemas_are_inherited_whole_or_replaced_whole() -> None:
    parent = resolved(
        name="base",
        code=SOURCE,
        config_schema={"type": "object", "properties": {"n": {"type": "integer"}}},
        examples=[{"input": "a"}],
    )
    heir = resolved(parent, default_config={"n": 1})
    assert heir.code == SOURCE
    assert heir.config_schema == parent.config_schema
    assert heir.examples == parent.examples
    other = resolved(parent, code=MODULE, config_schema={"type": "object"}, examples=[])
    assert other.code == MODULE
    assert other.config_schema == {"type": "object"}
    assert other.examples == ()


def test_own_code_that_is_not_pinned_is_not_the_parents() -> None:
    parent = resolved(name="base", code=SOURCE)
    child = template(parent="documentation/base", code={"module": "a.wasm", "abi": "command"})
    assert resolve(child, [parent], author="alice", code=None).is_abstract


WIDENED = [
    ({"limits": {"fuel": 1_001}}, "WIDENED_LIMIT", "/limits/fuel"),
    ({"limits": {"wall_ms": 51}}, "WIDENED_LIMIT", "/limits/wall_ms"),
    ({"grants": {"kv": {"namespace": "notes", "bytes_max": 101}}}, "WIDENED_GRANT", "/grants/kv/bytes_max"),
    ({"grants": {"kv": {"namespace": "other", "bytes_max": 1}}}, "WIDENED_GRANT", "/grants/kv/namespace"),
    ({"grants": {"agents": ["documentation/x1", "*/*"]}}, "WIDENED_GRANT", "/grants/agents/1"),
    ({"grants": {"files": [{"mount": "/d", "export": "ex", "mode": "ro"}]}}, "WIDENED_GRANT", "/grants/files/0"),
]


@pytest.mark.parametrize(("members", "code", "pointer"), WIDENED)
def test_a_child_with_wider_rights_is_refused(members: dict[str, Any], code: str, pointer: str) -> None:
    with pytest.raises(InvalidTemplateError) as refused:
        resolved(BASE, **members)
    assert codes(refused.value) == [(code, pointer)]


def test_every_widened_right_is_reported_at_its_line() -> None:
    child = template(parent="documentation/base", limits={"fuel": 2_000, "wall_ms": 60}, grants={"agents": ["*/*"]})
    with pytest.raises(InvalidTemplateError) as refused:
        resolve(child, [BASE], author="alice", code=None)
    assert codes(refused.value) == [
        ("WIDENED_LIMIT", "/limits/fuel"),
        ("WIDENED_LIMIT", "/limits/wall_ms"),
        ("WIDENED_GRANT", "/grants/agents/0"),
    ]
    columns = [problem.column for problem in refused.value.problems]
    assert columns == sorted(columns)
    assert columns[0] > 1


def test_the_merged_configuration_must_fit_the_merged_schema() -> None:
    parent = resolved(name="base", default_config={"n": 1}, config_schema={"properties": {"n": {"type": "integer"}}})
    with pytest.raises(InvalidTemplateError) as refused:
        resolved(parent, default_config={"n": "one"})
    assert codes(refused.value) == [("CONFIG_MISMATCH", "/default_config/n")]
    with pytest.raises(InvalidTemplateError) as refused:
        resolved(parent, config_schema={"properties": {"n": {"type": "string"}}})
    assert codes(refused.value) == [("CONFIG_MISMATCH", "/default_config/n")]


def test_inherited_examples_must_fit_the_childs_schema() -> None:
    parent = resolved(name="base", examples=[{"input": "a"}])
    with pytest.raises(InvalidTemplateError) as refused:
        resolved(parent, input_schema={"type": "object"})
    assert codes(refused.value) == [("EXAMPLE_MISMATCH", "/examples/0/input")]


def test_a_line_that_grows_too_large_is_refused() -> None:
    one = resolved(name="one", default_config={"a": "x" * 240_000})
    two = resolved(one, name="two", default_config={"b": "x" * 240_000})
    with pytest.raises(InvalidTemplateError) as refused:
        resolved(two, one, name="three", default_config={"c": "x" * 240_000})
    assert codes(refused.value) == [("DOCUMENT_TOO_LARGE", "")]


def _line(length: int) -> list[ResolvedTemplate]:
    """Return ancestors, nearest first: t<length> … t1."""
    line: list[ResolvedTemplate] = []
    for number in range(1, length + 1):
        line = [resolved(*line, name=f"t{number}"), *line]
    return line


def test_a_line_of_eight_is_long_enough() -> None:
    line = _line(DEPTH_MAX - 1)
    child = resolved(*line)
    assert child.parent == line[0].pin
    last = [child, *line]
    with pytest.raises(InvalidTemplateError) as refused:
        resolved(*last, name="too-deep")
    assert codes(refused.value) == [("INHERITANCE_DEPTH", "/parent")]
    with pytest.raises(InvalidTemplateError) as refused:
        Library(*last).ancestors(template(name="too-deep", parent=str(child.ref.template_name)))
    assert codes(refused.value) == [("INHERITANCE_DEPTH", "/parent")]


def test_ancestors_are_found_by_name_and_then_by_pin() -> None:
    old, new = resolved(name="base", version="1.9.0"), resolved(name="base", version="1.10.0")
    middle = resolved(old, name="middle")
    library = Library(old, new, middle)
    assert library.ancestors(template(parent="documentation/base")) == (new,)
    assert library.ancestors(template(parent="documentation/middle")) == (middle, old)
    assert library.ancestors(template()) == ()


def test_a_missing_parent_or_ancestor_is_refused() -> None:
    middle = resolved(BASE, name="middle")
    for library, parent in [(Library(), "documentation/base"), (Library(middle), "documentation/middle")]:
        with pytest.raises(InvalidTemplateError) as refused:
            library.ancestors(template(parent=parent))
        assert codes(refused.value) == [("MISSING_PARENT", "/parent")]


@pytest.mark.parametrize(
    ("parent", "ancestors"),
    [
        ("documentation/base", []),
        (None, [BASE]),
        ("documentation/other", [BASE]),
        ("documentation/middle", [resolved(BASE, name="middle")]),
        ("documentation/middle", [resolved(BASE, name="middle"), resolved(name="base", version="9.0.0")]),
    ],
)
def test_ancestors_that_are_not_the_childs_are_refused(parent: str | None, ancestors: list[ResolvedTemplate]) -> None:
    with pytest.raises(InvalidTemplateError) as refused:
        resolve(template(parent=parent), ancestors, author="alice", code=None)
    assert codes(refused.value) == [("MISSING_PARENT", "/parent")]


def test_a_template_is_not_its_own_ancestor_in_another_version() -> None:
    first = resolved(name="one")
    second = resolved(first, name="two")
    with pytest.raises(InvalidTemplateError) as refused:
        Library(first, second).ancestors(template(name="one", version="2.0.0", parent="documentation/two"))
    assert codes(refused.value) == [("INHERITANCE_CYCLE", "/parent")]


def test_documents_submitted_together_are_ordered() -> None:
    leaf = template(name="leaf", parent="documentation/middle")
    middle = template(name="middle", parent="documentation/base")
    base, newer = template(name="base"), template(name="base", version="1.1.0")
    stranger = template(name="alone", parent="elsewhere/base")
    ordered = parents_first([leaf, newer, stranger, middle, base])
    assert set(map(id, ordered)) == set(map(id, [leaf, newer, stranger, middle, base]))
    assert ordered.index(base) < ordered.index(newer) < ordered.index(middle) < ordered.index(leaf)


def test_a_cycle_among_documents_is_refused() -> None:
    one, two = template(name="one", parent="documentation/two"), template(name="two", parent="documentation/one")
    with pytest.raises(InvalidTemplateError, match="← documentation/") as refused:
        parents_first([one, two])
    assert codes(refused.value) == [("INHERITANCE_CYCLE", "/parent")]


def test_the_same_document_twice_is_refused() -> None:
    with pytest.raises(InvalidTemplateError) as refused:
        parents_first([template(), template()])
    assert codes(refused.value) == [("DUPLICATE_TEMPLATE", "/name")]


configurations = st.dictionaries(
    st.sampled_from("abc"), json_values | st.dictionaries(st.sampled_from("ab"), json_values)
)


@given(configurations, configurations)
def test_a_merge_says_what_the_child_says_and_keeps_what_it_does_not_mention(
    parent: JsonObject, child: JsonObject
) -> None:
    merged = merge_config(parent, child)
    assert merged.keys() == parent.keys() | child.keys()
    for name, value in merged.items():
        theirs, ours = parent.get(name), child.get(name)
        if name not in child:
            assert value == theirs
        elif isinstance(theirs, dict) and isinstance(ours, dict):
            assert value == merge_config(theirs, ours)
        else:
            assert value == ours
    assert merge_config(merged, child) == merged
    assert merge_config(parent, {}) == parent


@given(st.lists(st.sampled_from("abcdef"), unique=True), st.lists(st.sampled_from("abcdef"), unique=True))
def test_unions_keep_the_parents_order_and_add_the_childs(inherited: list[str], own: list[str]) -> None:
    child = resolved(resolved(name="base", tools=inherited), tools=own)
    assert list(child.tools[: len(inherited)]) == inherited
    assert list(child.tools[len(inherited) :]) == [each for each in own if each not in inherited]
