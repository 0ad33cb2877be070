import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates.convert import Conversion, convert
from templates.document import read_template
from templates.problems import InvalidTemplateError
from tests.unit.templates.documents import as_bytes, codes, json_values

OLD = {
    "_signature": "MEUCIQ…",
    "_signed_at": "2024-05-01T10:00:00Z",
    "_version": 3,
    "name": "Génie Logiciel",
    "role": "Ingénieur logiciel",
    "capabilities": ["analyse", "revue", "analyse"],
    "tools": ["ast", {"name": "radon", "args": []}],
    "default_config": {"langage": "python", "seuils": {"complexite": 10}},
    "parent": "Base",
    "temperature": 0.2,
}


def _convert(**members: Any) -> Conversion:
    value = {"name": "old-agent", "version": "1.0.0", "domain": "legacy", **members}
    return convert(as_bytes({name: member for name, member in value.items() if member is not None}))


def _pointers(notes: Any) -> set[str]:
    return {note.pointer for note in notes}


def test_a_document_of_the_earlier_system_becomes_a_template() -> None:
    found = convert(json.dumps(OLD, ensure_ascii=False).encode(), domain="software")
    assert found.template == {
        "schema": 1,
        "domain": "software",
        "name": "genie_logiciel",
        "version": "3.0.0",
        "parent": "software/base",
        "role": "Ingénieur logiciel",
        "capabilities": ["analyse", "revue"],
        "tools": ["ast", "radon"],
        "default_config": {"langage": "python", "seuils": {"complexite": 10}},
    }
    assert _pointers(found.dropped) == {"/_signature", "/_signed_at", "/temperature"}
    assert _pointers(found.assumed) == {
        "/name", "/domain", "/_version", "/parent", "/capabilities", "/tools", "/code", "/grants", "/limits",
    }  # fmt: skip
    assert read_template(found.to_bytes()).role == "Ingénieur logiciel"
    assert found.to_bytes().endswith(b"}\n")


def test_what_needs_no_change_is_not_said_to_be_assumed() -> None:
    found = _convert(role="r", description="one\ntwo", capabilities=["a"], labels={"team": "x"})
    assert _pointers(found.assumed) == {"/code", "/grants", "/limits"}
    assert found.dropped == ()
    assert found.template["description"] == "one\ntwo"


@pytest.mark.parametrize(
    ("stated", "version"),
    [
        ({"version": "2.1.0-rc.1"}, "2.1.0-rc.1"),
        ({"version": "v2"}, "2.0.0"),
        ({"version": 2}, "2.0.0"),
        ({"version": 1.5}, "1.5.0"),
        ({"version": "2.1"}, "2.1.0"),
        ({"version": "02.01.0"}, "2.1.0"),
        ({"version": "2.1.0+build"}, "2.1.0"),
        ({"version": None, "_version": "4"}, "4.0.0"),
        ({"version": "latest"}, "1.0.0"),
        ({"version": ["1"]}, "1.0.0"),
        ({"version": None}, "1.0.0"),
        ({"version": "1.0.0", "_version": 9}, "1.0.0"),
    ],
)
def test_versions_of_many_hands_become_semantic(stated: dict[str, Any], version: str) -> None:
    found = _convert(**stated)
    assert found.template["version"] == version
    assert ("/_version" in _pointers(found.dropped)) == (stated.get("_version") == 9)


@pytest.mark.parametrize(
    ("members", "name", "value"),
    [
        ({"capabilities": "a, b ,,"}, "capabilities", ["a", "b"]),
        ({"capabilities": {"a": True, "b": {"x": 1}, "c": False}}, "capabilities", ["a", "b"]),
        ({"capabilities": [1, None, {"name": "a"}, {"id": "b"}, {"x": 1}]}, "capabilities", ["a", "b"]),
        ({"capabilities": 5}, "capabilities", []),
        ({"skills": ["a"]}, "capabilities", ["a"]),
        ({"config": {"a": 1}}, "default_config", {"a": 1}),
        ({"extends": "base"}, "parent", "legacy/base"),
        ({"parent": "Docs/Base@2"}, "parent", "docs/base"),
        ({"domain": "Équipe Docs"}, "domain", "equipe_docs"),
        ({"domain": 5}, "domain", "imported"),
        ({"name": None, "agent_name": "MonAgent"}, "name", "mon_agent"),
        ({"role": "a\x1b[31m\nb"}, "role", "a [31m b"),
        ({"description": "d" * 5000}, "description", "d" * 4096),
    ],
)
def test_what_is_understood_is_kept_and_said(members: dict[str, Any], name: str, value: object) -> None:
    found = _convert(**members)
    assert found.template[name] == value
    source = next(iter(members)) if members[next(iter(members))] is not None else "agent_name"
    assert f"/{source}" in _pointers(found.assumed)


@pytest.mark.parametrize(
    "members",
    [
        {"role": 5},
        {"description": ["x"]},
        {"default_config": [1]},
        {"parent": "a/b/c"},
        {"parent": "images/cpython"},
        {"config_schema": {"type": "nonsense"}},
        {"config_schema": "object"},
        {"default_config": {"a": "x"}, "config_schema": {"properties": {"a": {"type": "integer"}}}},
        {"examples": [{"question": "?"}]},
        {"labels": {"Team": 1}},
        {"grants": {"network": True}},
        {"limits": {"seconds": 3}},
        {"code": "print(1)"},
        {"callers": ["*/*"]},
        {"model": "x"},
    ],
    ids=str,
)
def test_what_does_not_fit_is_dropped_and_said(members: dict[str, Any]) -> None:
    found = _convert(**members)
    name = next(iter(members))
    assert name not in found.template
    assert f"/{name}" in _pointers(found.dropped)


def test_credentials_do_not_get_into_templates() -> None:
    found = _convert(
        default_config={
            "api_key": "sk-1",
            "nested": {"Password": "x", "user": "y"},
            "max_tokens": 5,
            "token": "",
            "auth_token": "z",
        }
    )
    assert found.template["default_config"] == {"nested": {"user": "y"}, "max_tokens": 5, "token": ""}
    assert _pointers(found.dropped) == {
        "/default_config/api_key", "/default_config/nested/Password", "/default_config/auth_token",
    }  # fmt: skip
    assert "sk-1" not in str(found)


def test_a_wrapped_document_is_unwrapped() -> None:
    found = convert(as_bytes({"template": {"name": "inner", "version": "1.0.0"}, "_signature": "x"}), domain="legacy")
    assert found.template["name"] == "inner"
    assert "/_signature" in _pointers(found.dropped)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"[]", "INVALID_VALUE"),
        (b"{}", "INVALID_VALUE"),
        (b'{"name":5}', "INVALID_VALUE"),
        (b'{"name":"!"}', "INVALID_VALUE"),
        (b'{"name":"a","name":"b"}', "DUPLICATE_KEY"),
        (b'{"name":', "INVALID_JSON"),
        (b'{"name":"agent","x":NaN}', "INVALID_NUMBER"),
    ],
)
def test_what_cannot_be_converted_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(InvalidTemplateError) as refused:
        convert(data)
    assert [each for each, _ in codes(refused.value)] == [code]


@given(
    st.dictionaries(
        st.sampled_from(
            [*OLD, "version", "domain", "description", "config", "extends", "labels", "examples", "config_schema"]
        ),
        json_values,
    )
)
def test_any_document_with_a_name_becomes_a_template_and_nothing_is_lost_in_silence(members: dict[str, Any]) -> None:
    value = {**members, "name": "agent"}
    found = convert(as_bytes(value))
    read_template(found.to_bytes())
    assert "grants" not in found.template
    said = {note.pointer.split("/")[1] for note in (*found.dropped, *found.assumed)}
    for name, member in value.items():
        assert name in said or found.template.get(name) == member or member is None or (name == "parent" and not member)
