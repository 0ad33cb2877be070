"""JSON without loopholes: what two parsers could read differently is refused, with the place of every problem.

Three readers with one meaning: `scan` goes on after a problem, so that an author sees all of them at once; `parse` is
`scan` that refuses; `loads` gives up the places in large input for the speed of the C scanner.
"""

import codecs
import json
import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from templates.canonical import INTEGER_MAX, JsonObject, JsonValue, NotCanonicalError, canonical_bytes
from templates.problems import InvalidDocumentError, Position, Problem, join
from templates.reasons import Reason

DOCUMENT_BYTES_MAX = 262_144
DOCUMENT_DEPTH_MAX = 32

_BYTE_ORDER_MARK = "\ufeff"
_SPACE = re.compile(r"[ \t\n\r]*")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]++|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*+"')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?(?![0-9A-Za-z.+-])")
_NOT_A_NUMBER = re.compile(r"NaN|-?Infinity")
_LITERAL = re.compile(r"(?:true|false|null)(?![0-9A-Za-z_])")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_LITERALS: dict[str, bool | None] = {"true": True, "false": False, "null": None}
_EXPONENT_FROM = 1e21  # RFC 8785 writes smaller doubles as integers, which no longer tell their neighbours apart
_DIGITS_MAX = 64  # no double needs more to be told from its neighbours; the conversion of more is quadratic


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A parsed value, and the place of each of its members by JSON pointer (of the key, for members of objects)."""

    value: JsonValue
    positions: Mapping[str, Position]


def parse(data: bytes, *, bytes_max: int = DOCUMENT_BYTES_MAX, depth_max: int = DOCUMENT_DEPTH_MAX) -> Located:
    """Parse one JSON document and remember where everything stands.

    Refused: a byte order mark, invalid UTF-8, duplicate keys, NaN and Infinity, lone surrogates, integers beyond
    ±(2^53-1), numbers that overflow, trailing data, more than ``bytes_max`` bytes, nesting beyond ``depth_max``.

    Raises:
        InvalidDocumentError: with every problem up to the first that makes the rest unreadable.
    """
    located, problems = scan(data, bytes_max=bytes_max, depth_max=depth_max)
    if problems or located is None:
        raise InvalidDocumentError(problems)
    return located


def scan(
    data: bytes, *, bytes_max: int = DOCUMENT_BYTES_MAX, depth_max: int = DOCUMENT_DEPTH_MAX
) -> tuple[Located | None, tuple[Problem, ...]]:
    """Read as far as possible. A value that comes with problems is for finding further problems, never for use.

    Returns:
        What was read, None if the text ends in a problem that makes the rest unreadable, and every problem found.
    """
    if len(data) > bytes_max:
        message = f"expected a document of at most {bytes_max} bytes, got {len(data)}"
        return None, (Problem(code=Reason.DOCUMENT_TOO_LARGE, message=message),)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        message = f"expected UTF-8, got the byte 0x{data[error.start]:02x}"
        return None, (Problem(code=Reason.INVALID_ENCODING, message=message, line=line, column=column),)
    reader = _Reader(text, depth_max=depth_max)
    try:
        value = reader.document()
    except _UnreadableError:
        return None, tuple(reader.problems)
    return Located(value=value, positions=reader.positions), tuple(reader.problems)


def loads(data: bytes, *, bytes_max: int, depth_max: int) -> JsonValue:
    """Refuse what `parse` refuses and return the value alone.

    Raises:
        InvalidDocumentError: with the first problem of large input, with all of them below `DOCUMENT_BYTES_MAX`.
    """
    try:
        return _loads_fast(data, bytes_max=bytes_max, depth_max=depth_max)
    except InvalidDocumentError:
        if len(data) <= min(DOCUMENT_BYTES_MAX, bytes_max):
            parse(data, bytes_max=bytes_max, depth_max=depth_max)
        raise


def read_canonical(data: bytes, *, bytes_max: int, depth_max: int = 64) -> JsonValue:
    """Parse strictly and refuse bytes that are not their own canonical form: what is verified is what travelled.

    Raises:
        InvalidDocumentError: not strict JSON.
        NotCanonicalError: valid JSON, but other bytes than RFC 8785 gives for it.
    """
    value = loads(data, bytes_max=bytes_max, depth_max=depth_max)
    expected = canonical_bytes(value)
    if expected != data:
        same = next((at for at, (ours, theirs) in enumerate(zip(expected, data, strict=False)) if ours != theirs), None)
        place = min(len(expected), len(data)) if same is None else same
        raise NotCanonicalError(f"expected the RFC 8785 form of the document, got other bytes from offset {place} on")
    return value


class _UnreadableError(Exception):
    """Reading cannot go on; the problem is in the reader's list."""


class _Reader:
    """Recursive descent over the whole text; the recursion is bounded by ``depth_max``."""

    def __init__(self, text: str, *, depth_max: int) -> None:
        self.problems: list[Problem] = []
        self.positions: dict[str, Position] = {}
        self._text = text
        self._at = 0
        self._depth_max = depth_max
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def document(self) -> JsonValue:
        if self._text.startswith(_BYTE_ORDER_MARK):
            self._note(Reason.INVALID_ENCODING, "expected UTF-8 without a byte order mark, got one", "")
            self._at = 1
        self._skip_space()
        self.positions[""] = self._position(self._at)
        value = self._value("", 0)
        self._skip_space()
        if self._at < len(self._text):
            self._give_up(Reason.INVALID_JSON, "expected the end of the document", "")
        return value

    def _value(self, pointer: str, depth: int) -> JsonValue:
        match self._text[self._at : self._at + 1]:
            case "{":
                return self._object(pointer, depth + 1)
            case "[":
                return self._array(pointer, depth + 1)
            case '"':
                return self._string(pointer)
            case _:
                return self._scalar(pointer)

    def _object(self, pointer: str, depth: int) -> JsonObject:
        self._open(pointer, depth)
        members: JsonObject = {}
        if self._take("}"):
            return members
        while True:
            start = self._at
            if self._text[start : start + 1] != '"':
                self._give_up(Reason.INVALID_JSON, "expected a key in double quotes", pointer)
            key = self._string(pointer)
            place = join(pointer, key)
            if key in members:
                self._note(Reason.DUPLICATE_KEY, f"expected each key once, got {shown(key)} again", place, at=start)
            else:
                self.positions[place] = self._position(start)
            self._skip_space()
            self._expect(":", place)
            self._skip_space()
            value = self._value(place, depth)
            members.setdefault(key, value)
            self._skip_space()
            if self._take("}"):
                return members
            self._expect(",", pointer, instead="expected , or }")
            self._skip_space()

    def _array(self, pointer: str, depth: int) -> list[JsonValue]:
        self._open(pointer, depth)
        items: list[JsonValue] = []
        if self._take("]"):
            return items
        while True:
            place = f"{pointer}/{len(items)}"
            self.positions[place] = self._position(self._at)
            items.append(self._value(place, depth))
            self._skip_space()
            if self._take("]"):
                return items
            self._expect(",", pointer, instead="expected , or ]")
            self._skip_space()

    def _open(self, pointer: str, depth: int) -> None:
        if depth > self._depth_max:
            self._give_up(Reason.DOCUMENT_TOO_DEEP, f"expected at most {self._depth_max} levels of nesting", pointer)
        self._at += 1
        self._skip_space()

    def _string(self, pointer: str) -> str:
        matched = _STRING.match(self._text, self._at)
        if matched is None:
            self._give_up(Reason.INVALID_JSON, "expected a string that ends, without raw control characters", pointer)
        raw = matched.group()
        text: str = json.loads(raw) if "\\" in raw else raw[1:-1]
        if _SURROGATE.search(text):
            self._note(Reason.INVALID_ENCODING, "expected whole characters, got a lone surrogate", pointer)
            text = _SURROGATE.sub("\ufffd", text)
        self._at = matched.end()
        return text

    def _scalar(self, pointer: str) -> JsonValue:
        if matched := _LITERAL.match(self._text, self._at):
            value: JsonValue = _LITERALS[matched.group()]
        elif matched := _NUMBER.match(self._text, self._at):
            value = self._number(matched.group(), pointer)
        elif matched := _NOT_A_NUMBER.match(self._text, self._at):
            self._note(Reason.INVALID_NUMBER, f"expected a finite number, got {matched.group()}", pointer)
            value = None
        else:
            self._give_up(Reason.INVALID_JSON, "expected a value", pointer)
        self._at = matched.end()
        return value

    def _number(self, digits: str, pointer: str) -> int | float:
        try:
            return _number(digits)
        except ValueError as error:
            self._note(Reason.INVALID_NUMBER, str(error), pointer)
            return 0

    def _skip_space(self) -> None:
        matched = _SPACE.match(self._text, self._at)
        self._at = matched.end() if matched else self._at

    def _take(self, character: str) -> bool:
        taken = self._text.startswith(character, self._at)
        self._at += taken
        return taken

    def _expect(self, character: str, pointer: str, *, instead: str = "") -> None:
        if not self._take(character):
            self._give_up(Reason.INVALID_JSON, instead or f"expected {character}", pointer)

    def _position(self, at: int) -> Position:
        line = bisect_right(self._line_starts, at)
        return Position(line=line, column=at - self._line_starts[line - 1] + 1)

    def _note(self, code: Reason, message: str, pointer: str, *, at: int | None = None) -> None:
        place = self._position(self._at if at is None else at)
        self.problems.append(Problem(code=code, message=message, pointer=pointer, line=place.line, column=place.column))

    def _give_up(self, code: Reason, expected: str, pointer: str) -> NoReturn:
        rest = self._text[self._at : self._at + 20].partition("\n")[0]
        self._note(code, f"{expected}, got {shown(rest) if self._at < len(self._text) else 'the end'}", pointer)
        raise _UnreadableError


def _number(digits: str) -> int | float:
    """Convert what the grammar allows: to an integer whatever RFC 8785 writes as one, ``1.0`` and ``1e3`` included.

    Raises:
        ValueError: the number has no exact place among the doubles; the message is a sentence for the author.
    """
    if len(digits) > _DIGITS_MAX:
        raise ValueError(f"expected a number of at most {_DIGITS_MAX} characters, got {len(digits)}")
    value = float(digits) if set(digits) & set(".eE") else int(digits)
    if not math.isfinite(value):
        raise ValueError(f"expected a number within the range of a double, got {digits}")
    if abs(value) > INTEGER_MAX and (isinstance(value, int) or abs(value) < _EXPONENT_FROM):
        raise ValueError(f"expected an integer within ±(2^53-1), got {digits}")
    return int(value) if abs(value) <= INTEGER_MAX and value == int(value) else value


def _loads_fast(data: bytes, *, bytes_max: int, depth_max: int) -> JsonValue:
    if len(data) > bytes_max:
        raise _refusal(Reason.DOCUMENT_TOO_LARGE, f"expected a document of at most {bytes_max} bytes, got {len(data)}")
    if data.startswith(codecs.BOM_UTF8):
        raise _refusal(Reason.INVALID_ENCODING, "expected UTF-8 without a byte order mark, got one")
    try:
        value: JsonValue = json.loads(
            data.decode(),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=_checked_number,
            parse_float=_checked_number,
        )
    except UnicodeDecodeError as error:
        raise _refusal(Reason.INVALID_ENCODING, f"expected UTF-8, got {error.reason} at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise InvalidDocumentError(
            [
                Problem(
                    code=Reason.INVALID_JSON,
                    message=f"expected JSON, got an error: {error.msg}",
                    line=error.lineno,
                    column=error.colno,
                )
            ]
        ) from error
    except RecursionError as error:
        raise _refusal(Reason.DOCUMENT_TOO_DEEP, f"expected at most {depth_max} levels of nesting, got more") from error
    _require_depth(value, depth_max)
    if _ESCAPED_SURROGATE.search(data):
        _require_whole_characters(value)
    return value


def _require_whole_characters(value: JsonValue) -> None:
    """Refuse lone surrogates. `parse` would, but takes a minute and a gigabyte for 16 MiB of hostile metadata."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise _refusal(Reason.INVALID_ENCODING, "expected whole characters, got a lone surrogate") from error


def _require_depth(value: JsonValue, depth_max: int) -> None:
    level = _containers([value])
    for _ in range(depth_max):
        level = _containers(member for each in level for member in (each.values() if isinstance(each, dict) else each))
    if level:
        raise _refusal(Reason.DOCUMENT_TOO_DEEP, f"expected at most {depth_max} levels of nesting, got more")


def _containers(values: Iterable[JsonValue]) -> list[JsonObject | list[JsonValue]]:
    return [each for each in values if isinstance(each, (dict, list))]


def _unique(pairs: list[tuple[str, JsonValue]]) -> JsonObject:
    members = dict(pairs)
    if len(members) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _refusal(Reason.DUPLICATE_KEY, f"expected each key once, got {shown(twice)} again")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise _refusal(Reason.INVALID_NUMBER, f"expected a finite number, got {name}")


def _checked_number(digits: str) -> int | float:
    try:
        return _number(digits)
    except ValueError as error:
        raise _refusal(Reason.INVALID_NUMBER, str(error)) from error


def _refusal(code: Reason, message: str) -> InvalidDocumentError:
    return InvalidDocumentError([Problem(code=code, message=message)])


def shown(text: str, *, length_max: int = 60) -> str:
    """Quote a piece of a document for a message: escaped, on one line, of bounded length."""
    cut = text if len(text) <= length_max else text[: length_max - 1] + "…"
    return json.dumps(cut, ensure_ascii=True) if not cut.isprintable() else f'"{cut}"'
