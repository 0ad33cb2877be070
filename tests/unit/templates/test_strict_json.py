import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from templates.canonical import JsonValue, NotCanonicalError, canonical_bytes
from templates.problems import InvalidDocumentError, Position
from templates.strict_json import DOCUMENT_BYTES_MAX, loads, parse, read_canonical, scan, shown
from tests.unit.templates.documents import json_values

REFUSALS = [
    pytest.param(b"", "INVALID_JSON", "", 1, 1, id="nothing"),
    pytest.param(b"{", "INVALID_JSON", "", 1, 2, id="the end in an object"),
    pytest.param(b'{"a"}', "INVALID_JSON", "/a", 1, 5, id="no colon"),
    pytest.param(b'{"a":1,}', "INVALID_JSON", "", 1, 8, id="trailing comma in an object"),
    pytest.param(b"[1,]", "INVALID_JSON", "/1", 1, 4, id="trailing comma in an array"),
    pytest.param(b'{"a":1 "b":2}', "INVALID_JSON", "", 1, 8, id="no comma"),
    pytest.param(b"[1 2]", "INVALID_JSON", "", 1, 4, id="no comma in an array"),
    pytest.param(b"{'a':1}", "INVALID_JSON", "", 1, 2, id="single quotes"),
    pytest.param(b"{a:1}", "INVALID_JSON", "", 1, 2, id="bare key"),
    pytest.param(b"// c\n{}", "INVALID_JSON", "", 1, 1, id="comment"),
    pytest.param(b"{}\n{}", "INVALID_JSON", "", 2, 1, id="two documents"),
    pytest.param(b"{}\x00", "INVALID_JSON", "", 1, 3, id="NUL at the end"),
    pytest.param(b"\xc2\xa0{}", "INVALID_JSON", "", 1, 1, id="space that is not JSON's"),
    pytest.param(b'"a\nb"', "INVALID_JSON", "", 1, 1, id="raw control character"),
    pytest.param(b'"\\x41"', "INVALID_JSON", "", 1, 1, id="unknown escape"),
    pytest.param(b'"\\u12"', "INVALID_JSON", "", 1, 1, id="short escape"),
    pytest.param(b'"abc', "INVALID_JSON", "", 1, 1, id="string without end"),
    pytest.param(b"True", "INVALID_JSON", "", 1, 1, id="Python's true"),
    pytest.param(b"nullx", "INVALID_JSON", "", 1, 1, id="word that begins with null"),
    pytest.param(b"[01]", "INVALID_JSON", "/0", 1, 2, id="leading zero"),
    pytest.param(b"[+1]", "INVALID_JSON", "/0", 1, 2, id="plus sign"),
    pytest.param(b"[.5]", "INVALID_JSON", "/0", 1, 2, id="no digit before the point"),
    pytest.param(b"[5.]", "INVALID_JSON", "/0", 1, 2, id="no digit after the point"),
    pytest.param(b"[0x10]", "INVALID_JSON", "/0", 1, 2, id="hexadecimal"),
    pytest.param('{"é":\n\t\ttru}'.encode(), "INVALID_JSON", "/é", 2, 3, id="second line"),
    pytest.param(b"[NaN]", "INVALID_NUMBER", "/0", 1, 2, id="NaN"),
    pytest.param(b"[Infinity]", "INVALID_NUMBER", "/0", 1, 2, id="Infinity"),
    pytest.param(b"[-Infinity]", "INVALID_NUMBER", "/0", 1, 2, id="-Infinity"),
    pytest.param(b"[1e999]", "INVALID_NUMBER", "/0", 1, 2, id="overflow"),
    pytest.param(b"[9007199254740992]", "INVALID_NUMBER", "/0", 1, 2, id="integer beyond a double"),
    pytest.param(b"[-9007199254740992]", "INVALID_NUMBER", "/0", 1, 2, id="negative integer beyond a double"),
    pytest.param(b"[1e20]", "INVALID_NUMBER", "/0", 1, 2, id="double that JCS writes as such an integer"),
    pytest.param(b"[" + b"9" * 5000 + b"]", "INVALID_NUMBER", "/0", 1, 2, id="thousands of digits"),
    pytest.param(b'{"a":{"b":1,"b":2}}', "DUPLICATE_KEY", "/a/b", 1, 13, id="duplicate key"),
    pytest.param(b'{"a":1,"\\u0061":2}', "DUPLICATE_KEY", "/a", 1, 8, id="duplicate key by escape"),
    pytest.param(b"\xef\xbb\xbf{}", "INVALID_ENCODING", "", 1, 1, id="byte order mark"),
    pytest.param(b'{\n "\xff":1}', "INVALID_ENCODING", "", 2, 3, id="invalid byte"),
    pytest.param(b'"\xed\xa0\x80"', "INVALID_ENCODING", "", 1, 2, id="surrogate in bytes"),
    pytest.param(b'["\\ud800"]', "INVALID_ENCODING", "/0", 1, 2, id="lone high surrogate"),
    pytest.param(b'["\\udc00\\ud800"]', "INVALID_ENCODING", "/0", 1, 2, id="surrogates the wrong way round"),
    pytest.param('{"a":1}'.encode("utf-16"), "INVALID_ENCODING", "", 1, 1, id="UTF-16"),
    pytest.param(b"[[[[1]]]]", "DOCUMENT_TOO_DEEP", "/0/0/0", 1, 4, id="too deep"),
    pytest.param(b'{"a":' * 100_0, "DOCUMENT_TOO_DEEP", "/a/a/a", 1, 16, id="far too deep"),
    pytest.param(b"[" * 12_000, "DOCUMENT_TOO_DEEP", "/0/0/0", 1, 4, id="as deep as long"),
    pytest.param(b'"' + b"a" * 12_289 + b'"', "DOCUMENT_TOO_LARGE", "", 1, 1, id="too large"),
]
BOUNDS = {"bytes_max": 12_288, "depth_max": 3}


@pytest.mark.parametrize(("data", "code", "pointer", "line", "column"), REFUSALS)
def test_what_is_refused_is_refused_with_its_place(
    data: bytes, code: str, pointer: str, line: int, column: int
) -> None:
    with pytest.raises(InvalidDocumentError) as refused:
        parse(data, **BOUNDS)
    problem = refused.value.problems[0]
    assert (problem.code, problem.pointer, problem.line, problem.column) == (code, pointer, line, column)
    with pytest.raises(InvalidDocumentError) as refused:
        loads(data, **BOUNDS)
    assert refused.value.problems[0].code == code


@pytest.mark.parametrize(("data", "code", "pointer", "line", "column"), REFUSALS[:-1])
def test_the_fast_reader_refuses_large_input_for_the_same_reason(
    data: bytes, code: str, pointer: str, line: int, column: int
) -> None:
    large = data + b" " * DOCUMENT_BYTES_MAX if not data.startswith(b"\xff\xfe") else data + b"  " * DOCUMENT_BYTES_MAX
    with pytest.raises(InvalidDocumentError) as refused:
        loads(large, bytes_max=2 * len(large), depth_max=3)
    unclosed = code == "DOCUMENT_TOO_DEEP" and not data.endswith(b"]")  # the C scanner may reach the end first
    assert refused.value.problems[0].code in ({code, "INVALID_JSON"} if unclosed else {code})


def test_every_problem_is_reported_at_once_in_the_order_of_the_text() -> None:
    data = b'{"a":1,\n"a":2,\n"b":[NaN,\n"\\ud800"],\n"c":1e999,\n"d" 1}'
    with pytest.raises(InvalidDocumentError) as refused:
        parse(data)
    assert [(str(each.code), each.line) for each in refused.value.problems] == [
        ("DUPLICATE_KEY", 2),
        ("INVALID_NUMBER", 3),
        ("INVALID_ENCODING", 4),
        ("INVALID_NUMBER", 5),
        ("INVALID_JSON", 6),
    ]
    assert refused.value.metadata["problems"] == "5"
    assert "and 4 more problems" in refused.value.message


def test_positions_are_those_of_keys_and_items() -> None:
    read = parse(b'{\n  "a/b": [1,\n   {"~": "\xc3\xa9", "x": 1}]\n}')
    assert read.value == {"a/b": [1, {"~": "é", "x": 1}]}
    assert read.positions["/a~1b"] == Position(line=2, column=3)
    assert read.positions["/a~1b/1"] == Position(line=3, column=4)
    assert read.positions["/a~1b/1/~0"] == Position(line=3, column=5)
    assert read.positions["/a~1b/1/x"] == Position(line=3, column=15)


def test_the_limits_themselves_are_allowed() -> None:
    assert parse(b"[[[1]]]", **BOUNDS).value == [[[1]]]
    assert parse(b'"' + b"a" * 12_286 + b'"', **BOUNDS).value == "a" * 12_286
    assert parse(b"[9007199254740991,-9007199254740991,1e21,0.1,1.0]").value == [2**53 - 1, 1 - 2**53, 1e21, 0.1, 1]
    assert loads(b"[[[]]]", bytes_max=10, depth_max=3) == [[[]]]
    assert parse(b'"\\ud83d\\ude00"').value == "😀"
    assert loads(b'"\\ud83d\\ude00"', bytes_max=100, depth_max=1) == "😀"


@given(json_values)
@example({"": {"": []}})
def test_whatever_json_can_say_is_read_as_it_was_meant(value: JsonValue) -> None:
    for data in (json.dumps(value).encode(), json.dumps(value, ensure_ascii=False, indent=3).encode()):
        assert parse(data).value == value
        assert loads(data, bytes_max=len(data), depth_max=32) == value


@given(json_values)
def test_canonical_bytes_are_read_as_their_own_canonical_form(value: JsonValue) -> None:
    data = canonical_bytes(value)
    assert read_canonical(data, bytes_max=len(data)) == value
    assert canonical_bytes(read_canonical(data, bytes_max=len(data))) == data


@given(st.binary(max_size=40) | st.text(alphabet='{}[]",:0123456789.eE+-\\u truefalsnNI', max_size=40).map(str.encode))
def test_the_two_readers_agree_about_every_input(data: bytes) -> None:
    read, problems = scan(data, depth_max=4)
    try:
        fast = loads(data, bytes_max=100, depth_max=4)
    except InvalidDocumentError as error:
        assert {each.code for each in error.problems} <= {each.code for each in problems}  # noqa: PT017 - both outcomes are right
    else:
        assert not problems
        assert read is not None
        assert read.value == fast


@pytest.mark.parametrize(
    "data",
    [b'{"b":1,"a":2}', b'{"a": 1}', b"1.0", b"-0", b"1e2", b'"\\u0061"', b"{}\n", b'"\\/"'],
)
def test_bytes_that_are_not_their_own_canonical_form_are_refused(data: bytes) -> None:
    with pytest.raises(NotCanonicalError, match="RFC 8785"):
        read_canonical(data, bytes_max=100)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, "\ud800", {"\udc00": 1}])
def test_what_has_no_canonical_form_is_refused(value: JsonValue) -> None:
    with pytest.raises(NotCanonicalError):
        canonical_bytes(value)


def test_keys_are_sorted_by_utf_16_code_units_as_rfc_8785_section_3_2_3_says() -> None:
    assert canonical_bytes({"\ufb33": 1, "😀": 2, "€": 3, "1": 4}) == '{"1":4,"€":3,"😀":2,"\ufb33":1}'.encode()


def test_messages_show_pieces_of_a_document_escaped_and_cut() -> None:
    assert shown("a\x1b[31m\n") == '"a\\u001b[31m\\n"'
    assert len(shown("x" * 1000)) < 70
    assert shown("é") == '"é"'
