"""JSON from callers and guests is read on the node's one event loop: no text may hold it up."""

import json

import pytest

from data_plane.agents import json_text
from data_plane.agents.json_text import CONTAINERS_MAX, parse_json
from data_plane.broker.answers import MEMBERS_MAX, ErrorKind, HostRefusal, Members
from templates.canonical import JsonValue


def test_a_repeated_key_at_the_end_of_many_costs_as_much_as_reading_them() -> None:
    """One megabyte of keys with the last one repeated took minutes, during which the node did nothing else."""

    class Counted(str):
        compared = 0
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            Counted.compared += 1
            return str.__eq__(self, other)

    pairs: list[tuple[str, JsonValue]] = [(Counted(f"k{index}"), None) for index in range(2_000)]
    pairs.append((Counted("k1999"), None))
    with pytest.raises(ValueError, match="'k1999' twice"):
        json_text._members(pairs)
    assert Counted.compared < 20_000


def test_more_arrays_and_objects_than_any_schema_needs_are_refused_before_they_are_built() -> None:
    assert parse_json(json.dumps([[]] * 1_000)) == [[]] * 1_000
    with pytest.raises(ValueError, match=f"at most {CONTAINERS_MAX} arrays and objects"):
        parse_json("[" + "[]," * CONTAINERS_MAX + "[]]")
    with pytest.raises(ValueError, match="arrays and objects"):
        parse_json(("[" + "{}," * CONTAINERS_MAX + "{}]").encode())


@pytest.mark.parametrize(
    "argument",
    [
        b'{"value":[' + b"[]," * 1_000 + b"1]}",
        b'{"value":{}}',
        b'{"value":[]}',
        b"{" + b",".join(b'"%d":0' % index for index in range(MEMBERS_MAX + 1)) + b"}",
        b'{"key":"a"',
        b"[]",
        b"{}{}",
        b'{"key":tru}',
        b'{"key":"\xff"}',
    ],
)
def test_a_host_call_whose_argument_is_not_a_small_flat_object_is_refused_before_it_is_built(argument: bytes) -> None:
    with pytest.raises(HostRefusal) as refusal:
        Members.parse(argument)
    assert refusal.value.kind is ErrorKind.INVALID


@pytest.mark.parametrize("value", ["", "a", 'quote " and \\ and [ ] { } ,', "é\U0001f600", "\n\t\0", "x" * 1_000_000])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_flat_objects_are_read_whatever_their_texts_hold(value: str, ascii_only: bool) -> None:  # noqa: FBT001
    argument = json.dumps({"key": value, "expected": 7, "none": None}, ensure_ascii=ascii_only, indent=1).encode()
    members = Members.parse(argument)
    assert members.text("key") == value
    assert members.count_or_none("expected") == 7
    assert members.count_or_none("none") is None


def test_lone_surrogates_are_no_text() -> None:
    with pytest.raises(HostRefusal):
        Members.parse(b'{"key":"\\ud800"}').text("key")
    assert Members.parse(b'{"key":"\\ud83d\\ude00"}').text("key") == "\U0001f600"
