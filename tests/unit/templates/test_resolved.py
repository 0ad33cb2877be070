import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates.canonical import NotCanonicalError, canonical_bytes
from templates.names import TemplateName
from templates.problems import InvalidDocumentError, InvalidTemplateError
from templates.resolved import RESOLVED_BYTES_MAX, BlobPin, read_resolved
from tests.unit.templates.documents import MODULE, SOURCE, codes, json_values, resolved

WHOLE = resolved(
    resolved(name="base", grants={"agents": ["*/*"]}),
    code=SOURCE,
    labels={"team": "docs"},
    capabilities=["b", "a"],
    default_config={"b": 1.0, "a": [1e30, 0.1, "é"]},
    config_schema={"type": "object"},
    input_schema={"type": ["string", "null"]},
    examples=[{"input": None, "output": "x"}, {"input": "y"}],
    grants={"agents": ["code/*", "code/base"]},
    callers=["docs/*", "code/*"],
)
BLOB = {"sha256": "0" * 64, "length": 1}


def _changed(**members: Any) -> bytes:
    value: dict[str, Any] = {**WHOLE.to_json(), **members}
    return canonical_bytes({name: member for name, member in value.items() if member is not None})


def test_what_is_written_is_read_again() -> None:
    data = WHOLE.to_bytes()
    read = read_resolved(data)
    assert read == WHOLE
    assert read.to_bytes() == data
    assert read.digest == WHOLE.digest
    assert len(read.digest) == 64


def test_the_form_is_pinned() -> None:
    assert json.loads(WHOLE.to_bytes()) == {
        "schema": 1,
        "domain": "documentation",
        "name": "documentaliste",
        "version": "1.0.0",
        "author": "alice",
        "role": "",
        "description": "",
        "labels": {"team": "docs"},
        "parent": {
            "template": "documentation/base@1.0.0",
            "sha256": resolved(name="base", grants={"agents": ["*/*"]}).digest,
        },
        "capabilities": ["b", "a"],
        "tools": [],
        "default_config": {"b": 1, "a": [1e30, 0.1, "é"]},
        "config_schema": {"type": "object"},
        "input_schema": {"type": ["string", "null"]},
        "examples": [{"input": None, "output": "x"}, {"input": "y"}],
        "code": {
            "source": {"sha256": "a" * 64, "length": 120, "file": "agent.py"},
            "image": {"template": "images/cpython@0.1.0", "sha256": "b" * 64, "length": 20_000_000},
        },
        "grants": {"agents": ["code/*", "code/base"]},
        "limits": {
            "fuel": 2_000_000_000,
            "wall_ms": 10_000,
            "memory_bytes": 134_217_728,
            "input_bytes": 1_048_576,
            "output_bytes": 1_048_576,
            "log_bytes": 262_144,
            "host_calls": 1_000,
        },
        "callers": ["code/*", "docs/*"],
        "on_lease_expiry": "continue",
    }


def test_the_order_in_which_an_author_writes_sets_does_not_change_the_digest() -> None:
    assert resolved(callers=["ab/*", "cd/*"]).digest == resolved(callers=["cd/*", "ab/*"]).digest
    assert resolved(capabilities=["a", "b"]).digest != resolved(capabilities=["b", "a"]).digest


@pytest.mark.parametrize(
    ("members", "code", "pointer"),
    [
        *(({name: None}, "MISSING_FIELD", "") for name in WHOLE.to_json() if name not in {
            "parent", "code", "config_schema", "input_schema", "output_schema",
        }),
        ({"signature": "x"}, "UNKNOWN_FIELD", "/signature"),
        ({"author": "a b"}, "INVALID_VALUE", "/author"),
        ({"author": ""}, "INVALID_VALUE", "/author"),
        ({"parent": {"template": "documentation/base", "sha256": "0" * 64}}, "INVALID_VALUE", "/parent/template"),
        ({"parent": {"template": "documentation/base@1.0.0", "sha256": "A" * 64}}, "INVALID_VALUE", "/parent/sha256"),
        ({"code": {"module": {**BLOB, "length": -1}, "abi": "command"}}, "INVALID_VALUE", "/code/module/length"),
        ({"code": {"module": BLOB}}, "MISSING_FIELD", "/code"),
        ({"code": {"module": "a.wasm", "abi": "command"}}, "WRONG_TYPE", "/code/module"),
        ({"code": {"source": {**BLOB, "file": "a.py"}, "image": "cpython"}}, "WRONG_TYPE", "/code/image"),
        ({"limits": {**WHOLE.limits.to_json(), "fuel": 10**13}}, "INVALID_VALUE", "/limits/fuel"),
        ({"limits": {"fuel": 1}}, "MISSING_FIELD", "/limits"),
        ({"role": "a\nb"}, "INVALID_VALUE", "/role"),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_what_is_not_a_resolved_template_is_refused(members: dict[str, Any], code: str, pointer: str) -> None:
    with pytest.raises(InvalidTemplateError) as refused:
        read_resolved(_changed(**members))
    assert (code, pointer) in codes(refused.value)
    assert {each for each, _ in codes(refused.value)} == {code}


@pytest.mark.parametrize(
    "data",
    [
        WHOLE.to_bytes() + b"\n",
        WHOLE.to_bytes().replace(b'"schema":1', b'"schema":1.0'),
        WHOLE.to_bytes().replace(b'{"author"', b'{ "author"'),
        json.dumps(WHOLE.to_json(), sort_keys=True).encode(),
        _changed(callers=["docs/*", "code/*"]),
        _changed(grants={"agents": []}),
        _changed(grants={"agents": ["code/base", "code/*"]}),
    ],
    ids=["line end", "1.0", "space", "escapes", "unsorted set", "empty grant", "unsorted grant"],
)
def test_one_template_has_one_form(data: bytes) -> None:
    with pytest.raises(NotCanonicalError):
        read_resolved(data)


def test_bytes_that_are_not_strict_json_are_refused() -> None:
    for data, code in [
        (WHOLE.to_bytes().replace(b'"schema":1', b'"schema":1,"schema":1'), "DUPLICATE_KEY"),
        (b"{" + b" " * RESOLVED_BYTES_MAX + b"}", "DOCUMENT_TOO_LARGE"),
        (WHOLE.to_bytes()[:-1], "INVALID_JSON"),
    ]:
        with pytest.raises(InvalidDocumentError) as refused:
            read_resolved(data)
        assert refused.value.problems[0].code == code


def test_code_names_what_a_node_fetches() -> None:
    assert SOURCE.blobs() == (BlobPin(sha256="a" * 64, length=120), BlobPin(sha256="b" * 64, length=20_000_000))
    assert MODULE.blobs() == (BlobPin(sha256="c" * 64, length=3_000),)


def test_callers_are_those_that_a_pattern_names() -> None:
    assert WHOLE.permits_caller(TemplateName("docs", "any"))
    assert not WHOLE.permits_caller(TemplateName("other", "any"))
    assert not WHOLE.is_image
    assert not WHOLE.is_abstract
    assert resolved(domain="images", name="cpython", code=MODULE).is_image


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), json_values, max_size=4))
def test_any_configuration_survives_the_way_there_and_back(config: dict[str, Any]) -> None:
    before = resolved(default_config=config)
    after = read_resolved(before.to_bytes())
    assert after == before
    assert after.digest == before.digest


@given(st.integers(0, len(WHOLE.to_bytes()) - 1), st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_changes_the_digest(at: int, bit: int) -> None:
    data = bytearray(WHOLE.to_bytes())
    data[at] ^= 1 << bit
    try:
        read = read_resolved(bytes(data))
    except (InvalidDocumentError, NotCanonicalError):
        return
    assert read.digest != WHOLE.digest
