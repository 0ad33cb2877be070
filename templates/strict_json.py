"""JSON without loopholes: what two parsers could read differently is refused, with the place of every problem."""

from collections.abc import Mapping
from dataclasses import dataclass

from templates.canonical import JsonValue
from templates.problems import Position

DOCUMENT_BYTES_MAX = 262_144
DOCUMENT_DEPTH_MAX = 32


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
    raise NotImplementedError


def loads(data: bytes, *, bytes_max: int, depth_max: int) -> JsonValue:
    """Refuse what `parse` refuses and return the value alone, at the speed of the C scanner."""
    raise NotImplementedError
