"""JSON that callers and guests send where a schema waits for it: strict, bounded in depth, fast for large texts.

What a validator and a guest's parser could read differently is refused: duplicate keys, NaN and infinities.
"""

import json
from typing import Any, Final

from templates.canonical import JsonValue
from templates.schemas import VALUE_DEPTH_MAX

CONTAINERS_MAX: Final = 100_000
"""Building an array costs far more than reading it; brackets inside texts count too, which nobody notices."""

_DEPTH_MESSAGE: Final = f"expected JSON of at most {VALUE_DEPTH_MAX} levels"


def parse_json(text: str | bytes) -> JsonValue:
    """Return the value; raise `ValueError` with the sentence that says what is wrong."""
    brackets: tuple[Any, Any] = ("[", "{") if isinstance(text, str) else (b"[", b"{")
    if sum(map(text.count, brackets)) > CONTAINERS_MAX:
        raise ValueError(f"expected JSON of at most {CONTAINERS_MAX} arrays and objects")
    try:
        value: JsonValue = json.loads(text, object_pairs_hook=_members, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError(_DEPTH_MESSAGE) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"expected JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    level: list[Any] = [value]
    for _ in range(VALUE_DEPTH_MAX + 1):
        level = [
            member
            for each in level
            if isinstance(each, (dict, list))
            for member in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return value
    raise ValueError(_DEPTH_MESSAGE)


def _members(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"expected each key once, got {twice[:80]!r} twice")
    return members


def _refuse_constant(name: str) -> None:
    raise ValueError(f"expected finite numbers, got {name}")
