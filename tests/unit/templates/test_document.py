from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates.document import Abi, Example, LeaseExpiry, ModuleCode, SourceCode, read_template
from templates.grants import FileGrant, HttpInjection, KvGrant
from templates.limits import LIMIT_CEILINGS, LIMIT_NAMES
from templates.names import TemplateName, TemplatePattern, TemplateRef
from templates.problems import InvalidTemplateError
from tests.unit.templates.documents import as_bytes, codes, document, json_values

HTTP = {
    "binding": "crossref",
    "origin": "https://api.crossref.org",
    "methods": ["GET"],
    "path_prefixes": ["/works"],
    "inject": {"header": "Authorization", "secret": "crossref-token"},
}
LLM = {"binding": "default", "models": ["small"], "tokens_max": 20_000}
FILE = {"mount": "/data", "export": "corpus", "mode": "ro"}
WHOLE = document(
    role="documentalist",
    description="Reads.\n\tAnd sums up: é, 😀.",
    labels={"team": "docs"},
    parent="documentation/base",
    capabilities=["summarise", "outline"],
    tools=["markdown"],
    default_config={"sentences": 5},
    config_schema={"properties": {"sentences": {"type": "integer"}}},
    input_schema={"type": "string"},
    output_schema={"type": "object"},
    examples=[{"input": "a", "output": {}}, {"input": "b"}],
    code={"source": "src/agent.py", "image": "cpython"},
    grants={
        "kv": {"namespace": "notes", "bytes_max": 1_048_576},
        "http": [HTTP],
        "llm": [LLM],
        "agents": ["documentation/summariser", "code/*"],
        "files": [FILE],
    },
    limits={"fuel": 2_000_000_000, "wall_ms": 10_000},
    callers=["documentation/*"],
    on_lease_expiry="drain",
)


def _http(**members: Any) -> dict[str, Any]:
    return {"grants": {"http": [{name: value for name, value in {**HTTP, **members}.items() if value is not None}]}}


REFUSALS = [
    ({"schema": None}, "MISSING_FIELD", ""),
    ({"schema": 2}, "INVALID_VALUE", "/schema"),
    ({"schema": "1"}, "WRONG_TYPE", "/schema"),
    ({"domain": None}, "MISSING_FIELD", ""),
    ({"domain": "Documentation"}, "INVALID_VALUE", "/domain"),
    ({"domain": "d"}, "INVALID_VALUE", "/domain"),
    ({"name": None}, "MISSING_FIELD", ""),
    ({"name": "../x"}, "INVALID_VALUE", "/name"),
    ({"name": "abc\n"}, "INVALID_VALUE", "/name"),
    ({"version": None}, "MISSING_FIELD", ""),
    ({"version": "1.0"}, "INVALID_VALUE", "/version"),
    ({"version": 1}, "WRONG_TYPE", "/version"),
    ({"versoin": "1.0.0"}, "UNKNOWN_FIELD", "/versoin"),
    ({"_signature": "x"}, "UNKNOWN_FIELD", "/_signature"),
    ({"a/b~c": 1}, "UNKNOWN_FIELD", "/a~1b~0c"),
    ({"role": ["x"]}, "WRONG_TYPE", "/role"),
    ({"role": "two\nlines"}, "INVALID_VALUE", "/role"),
    ({"role": "r" * 201}, "INVALID_VALUE", "/role"),
    ({"description": "reordered \u202e text"}, "INVALID_VALUE", "/description"),
    ({"description": "a \x1b[31m terminal"}, "INVALID_VALUE", "/description"),
    ({"labels": {"Team": "x"}}, "INVALID_VALUE", "/labels"),
    ({"labels": {"team": 1}}, "WRONG_TYPE", "/labels/team"),
    ({"parent": "base"}, "INVALID_VALUE", "/parent"),
    ({"parent": "documentation/base@1.0.0"}, "INVALID_VALUE", "/parent"),
    ({"parent": "documentation/documentaliste"}, "INHERITANCE_CYCLE", "/parent"),
    ({"parent": "images/cpython"}, "INVALID_VALUE", "/parent"),
    ({"domain": "images", "parent": "documentation/base"}, "INVALID_VALUE", "/parent"),
    ({"capabilities": "one"}, "WRONG_TYPE", "/capabilities"),
    ({"capabilities": ["a", "a"]}, "INVALID_VALUE", "/capabilities"),
    ({"capabilities": [""]}, "INVALID_VALUE", "/capabilities/0"),
    ({"tools": [f"t{number}" for number in range(65)]}, "INVALID_VALUE", "/tools"),
    ({"tools": [1]}, "WRONG_TYPE", "/tools/0"),
    ({"default_config": []}, "WRONG_TYPE", "/default_config"),
    ({"config_schema": True}, "WRONG_TYPE", "/config_schema"),
    ({"config_schema": {"type": "strnig"}}, "INVALID_SCHEMA", "/config_schema/type"),
    ({"input_schema": {"$ref": "https://example.com/s"}}, "INVALID_SCHEMA", "/input_schema/$ref"),
    ({"output_schema": {"pattern": "(?=a)"}}, "INVALID_SCHEMA", "/output_schema/pattern"),
    (
        {"default_config": {"n": "x"}, "config_schema": {"properties": {"n": {"type": "integer"}}}},
        "CONFIG_MISMATCH",
        "/default_config/n",
    ),
    ({"config_schema": {"required": ["n"]}}, "CONFIG_MISMATCH", "/default_config"),
    ({"examples": [{"output": 1}]}, "MISSING_FIELD", "/examples/0"),
    ({"examples": [{"input": 1}]}, "EXAMPLE_MISMATCH", "/examples/0/input"),
    ({"examples": [{"input": "", "output": {}}]}, "EXAMPLE_MISMATCH", "/examples/0/output"),
    ({"examples": [{"input": 1}], "input_schema": {"type": "string"}}, "EXAMPLE_MISMATCH", "/examples/0/input"),
    (
        {"examples": [{"input": "", "output": {"a": 1}}], "output_schema": {"properties": {"a": {"type": "null"}}}},
        "EXAMPLE_MISMATCH",
        "/examples/0/output/a",
    ),
    ({"code": "agent.py"}, "WRONG_TYPE", "/code"),
    ({"code": {"image": "cpython"}}, "MISSING_FIELD", "/code"),
    ({"code": {"source": "agent.py"}}, "MISSING_FIELD", "/code"),
    ({"code": {"source": "../agent.py", "image": "cpython"}}, "INVALID_VALUE", "/code/source"),
    ({"code": {"source": "/etc/x.py", "image": "cpython"}}, "INVALID_VALUE", "/code/source"),
    ({"code": {"source": "a/../x.py", "image": "cpython"}}, "INVALID_VALUE", "/code/source"),
    ({"code": {"source": "agent.rb", "image": "cpython"}}, "INVALID_VALUE", "/code/source"),
    ({"code": {"module": "agent.cwasm", "abi": "component"}}, "INVALID_VALUE", "/code/module"),
    ({"code": {"module": "agent.wasm", "abi": "native"}}, "INVALID_VALUE", "/code/abi"),
    ({"code": {"module": "agent.wasm", "abi": "command", "image": "x"}}, "UNKNOWN_FIELD", "/code/image"),
    ({"domain": "images", "code": {"module": "a.wasm", "abi": "command"}}, "INVALID_VALUE", "/code"),
    ({"domain": "images", "code": {"source": "a.py", "image": "cpython"}}, "INVALID_VALUE", "/code"),
    ({"grants": {"gpu": {}}}, "UNKNOWN_FIELD", "/grants/gpu"),
    ({"grants": {"kv": {"namespace": "notes"}}}, "MISSING_FIELD", "/grants/kv"),
    ({"grants": {"kv": {"namespace": "*", "bytes_max": 1}}}, "INVALID_VALUE", "/grants/kv/namespace"),
    ({"grants": {"kv": {"namespace": "notes", "bytes_max": 0}}}, "INVALID_VALUE", "/grants/kv/bytes_max"),
    ({"grants": {"kv": {"namespace": "notes", "bytes_max": True}}}, "WRONG_TYPE", "/grants/kv/bytes_max"),
    ({"grants": {"agents": ["*/x1"]}}, "INVALID_VALUE", "/grants/agents/0"),
    ({"grants": {"http": [HTTP, HTTP]}}, "INVALID_VALUE", "/grants/http/1/binding"),
    ({"grants": {"llm": [LLM, LLM]}}, "INVALID_VALUE", "/grants/llm/1/binding"),
    ({"grants": {"files": [FILE, FILE]}}, "INVALID_VALUE", "/grants/files/1/mount"),
    ({"grants": {"files": [{**FILE, "mount": "data"}]}}, "INVALID_VALUE", "/grants/files/0/mount"),
    ({"grants": {"files": [{**FILE, "mount": "/a/../b"}]}}, "INVALID_VALUE", "/grants/files/0/mount"),
    ({"grants": {"files": [{**FILE, "mode": "w"}]}}, "INVALID_VALUE", "/grants/files/0/mode"),
    ({"grants": {"llm": [{**LLM, "models": []}]}}, "INVALID_VALUE", "/grants/llm/0/models"),
    (_http(methods=["get"]), "INVALID_VALUE", "/grants/http/0/methods/0"),
    (_http(methods=["CONNECT"]), "INVALID_VALUE", "/grants/http/0/methods/0"),
    (_http(path_prefixes=["works"]), "INVALID_VALUE", "/grants/http/0/path_prefixes/0"),
    (_http(path_prefixes=["/a/../b"]), "INVALID_VALUE", "/grants/http/0/path_prefixes/0"),
    (_http(path_prefixes=["/%2e%2e"]), "INVALID_VALUE", "/grants/http/0/path_prefixes/0"),
    (_http(path_prefixes=["/a?b"]), "INVALID_VALUE", "/grants/http/0/path_prefixes/0"),
    (_http(path_prefixes=["/a//b"]), "INVALID_VALUE", "/grants/http/0/path_prefixes/0"),
    (_http(path_prefixes=[""]), "INVALID_VALUE", "/grants/http/0/path_prefixes/0"),
    (_http(inject={"header": "Host", "secret": "token"}), "INVALID_VALUE", "/grants/http/0/inject/header"),
    (_http(inject={"header": "X-A\r\nB", "secret": "token"}), "INVALID_VALUE", "/grants/http/0/inject/header"),
    (_http(inject={"header": "Via", "secret": "token"}), "INVALID_VALUE", "/grants/http/0/inject/header"),
    (_http(headers=["X-Upper"]), "INVALID_VALUE", "/grants/http/0/headers/0"),
    (_http(headers=["x-a", "content-length"]), "INVALID_VALUE", "/grants/http/0/headers/1"),
    (_http(headers=["authorization"]), "INVALID_VALUE", "/grants/http/0/headers/0"),
    (_http(inject={"header": "X-A"}), "MISSING_FIELD", "/grants/http/0/inject"),
    *(
        (_http(origin=origin), "INVALID_VALUE", "/grants/http/0/origin")
        for origin in (
            "ftp://api.crossref.org", "http://a.b:80", "http://127.0.0.1:8080",
            "https://API.crossref.org", "https://user@api.crossref.org", "https://a.b/c",
            "https://a.b/", "https://a.b?c", "https://a.b#c", "https://127.0.0.1", "https://2130706433", "https://0x7f.1",
            "https://[::1]", "https://localhost", "https://a.b.", "https://a..b", "https://-a.b", "https://*.crossref.org",
            "https://a.b:443", "https://a.b:65536", "https://a.b:0", "https://a.b:", "https://a.b\\@c.d", "https://ａ.b",
            "https://a.b\n", "*",
        )
    ),
    ({"limits": {"threads": 1}}, "UNKNOWN_FIELD", "/limits/threads"),
    ({"limits": {"fuel": "1"}}, "WRONG_TYPE", "/limits/fuel"),
    ({"limits": {"fuel": 1.5}}, "WRONG_TYPE", "/limits/fuel"),
    ({"limits": {"fuel": 0}}, "INVALID_VALUE", "/limits/fuel"),
    *(
        ({"limits": {name: getattr(LIMIT_CEILINGS, name) + 1}}, "INVALID_VALUE", f"/limits/{name}")
        for name in LIMIT_NAMES
    ),
    ({"callers": ["documentation"]}, "INVALID_VALUE", "/callers/0"),
    ({"on_lease_expiry": "ignore"}, "INVALID_VALUE", "/on_lease_expiry"),
]  # fmt: skip


@pytest.mark.parametrize(("members", "code", "pointer"), REFUSALS, ids=lambda value: str(value)[:70])
def test_a_document_with_one_fault_is_refused_for_that_fault_alone(
    members: dict[str, Any], code: str, pointer: str
) -> None:
    with pytest.raises(InvalidTemplateError) as refused:
        read_template(as_bytes(document(**members)))
    assert codes(refused.value) == [(code, pointer)]
    assert refused.value.reason == "INVALID_TEMPLATE"


def test_a_whole_document_becomes_a_value() -> None:
    read = read_template(as_bytes(WHOLE))
    assert read.ref == TemplateRef.parse("documentation/documentaliste@1.0.0")
    assert read.parent == TemplateName("documentation", "base")
    assert read.code == SourceCode(source="src/agent.py", image="cpython")
    assert read.examples == (Example(input="a", output={}, has_output=True), Example(input="b"))
    assert [each.to_json() for each in read.examples] == WHOLE["examples"]
    assert read.grants.kv == KvGrant(namespace="notes", bytes_max=1_048_576)
    assert read.grants.http[0].inject == HttpInjection(header="Authorization", secret="crossref-token")
    assert read.grants.agents == (TemplatePattern("documentation", "summariser"), TemplatePattern("code", "*"))
    assert read.grants.files == (FileGrant(mount="/data", export="corpus", mode="ro"),)
    assert read.limits == {"fuel": 2_000_000_000, "wall_ms": 10_000}
    assert read.on_lease_expiry is LeaseExpiry.DRAIN
    assert read.description == "Reads.\n\tAnd sums up: é, 😀."


def test_the_smallest_document_leaves_everything_absent() -> None:
    read = read_template(as_bytes(document()))
    assert (read.role, read.parent, read.code, read.examples, read.on_lease_expiry) == (None,) * 5
    assert read.grants.to_json() == {}
    assert read.limits == {}
    assert read.callers == ()


def test_a_module_is_known_by_its_abi() -> None:
    read = read_template(as_bytes(document(code={"module": "build/agent.wasm", "abi": "command"})))
    assert read.code == ModuleCode(module="build/agent.wasm", abi=Abi.COMMAND)


def test_every_problem_of_text_shape_and_meaning_is_reported_at_once_with_its_line() -> None:
    data = b"""{
  "schema": 1, "domain": "documentation", "name": "Documentaliste",
  "version": "1.0.0", "version": "1.0.1",
  "roel": "x",
  "default_config": {"n": "x"},
  "config_schema": {"properties": {"n": {"type": "integer"}}},
  "input_schema": {"type": 5},
  "limits": {"fuel": NaN, "wall_ms": "1"},
  "grants": {"http": [{"binding": "ab", "origin": "https://a.b:443", "methods": ["GET"], "path_prefixes": ["/"]}]}
}"""
    with pytest.raises(InvalidTemplateError) as refused:
        read_template(data)
    assert [(str(each.code), each.line, each.column) for each in refused.value.problems] == [
        ("INVALID_VALUE", 2, 43),
        ("DUPLICATE_KEY", 3, 23),
        ("UNKNOWN_FIELD", 4, 3),
        ("CONFIG_MISMATCH", 5, 22),
        ("INVALID_SCHEMA", 7, 20),
        ("INVALID_NUMBER", 8, 22),
        ("WRONG_TYPE", 8, 27),
        ("INVALID_VALUE", 9, 41),
    ]
    assert 'did you mean "role"?' in str(refused.value.problems[2])
    assert str(refused.value.problems[0]).startswith("2:43: INVALID_VALUE: expected a word of 2 to 41")


@pytest.mark.parametrize("data", [b"[]", b"null", b'"x"', b"1"])
def test_what_is_not_an_object_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidTemplateError) as refused:
        read_template(data)
    assert codes(refused.value) == [("WRONG_TYPE", "")]


def test_a_fault_in_one_member_is_not_reported_again_for_those_that_depend_on_it() -> None:
    members = {"parent": 5, "config_schema": {"required": ["n"]}, "examples": [{"input": 1}]}
    with pytest.raises(InvalidTemplateError) as refused:
        read_template(as_bytes(document(**members)))
    assert codes(refused.value) == [("WRONG_TYPE", "/parent")]


def test_what_a_parent_may_complete_is_left_to_the_resolved_template() -> None:
    read = read_template(
        as_bytes(
            document(parent="documentation/base", config_schema={"required": ["n"]}, examples=[{"input": {"a": 1}}])
        )
    )
    assert read.config_schema == {"required": ["n"]}


def test_a_hidden_character_in_a_message_is_escaped() -> None:
    with pytest.raises(InvalidTemplateError) as refused:
        read_template(as_bytes(document(role="a\u202eb\x1b[31m", **{"x\x1b[0m": 1})))
    assert len(refused.value.problems) == 2
    assert all(str(problem).isprintable() for problem in refused.value.problems)


@given(st.dictionaries(st.sampled_from(sorted(WHOLE)), json_values))
def test_any_json_in_any_member_is_read_or_refused_with_a_place(members: dict[str, Any]) -> None:
    data = as_bytes({**WHOLE, **members})
    try:
        read_template(data)
    except InvalidTemplateError as error:
        lines = data.decode().count("\n") + 1
        places = [problem.line for problem in error.problems]
        assert places == [line for line in places if 1 <= line <= lines]
