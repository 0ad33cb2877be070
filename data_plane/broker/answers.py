"""The JSON that crosses between a guest and the broker, read as what an attacker wrote."""

import json
import re
from collections.abc import Mapping
from enum import StrEnum, unique
from typing import Self

from templates.canonical import JsonValue

ARGUMENT_BYTES_MAX = 17 * 1024 * 1024
MEMBERS_MAX = 8
_COUNT_MAX = 2**53 - 1
_TEXT = r'"(?:[^"\\]++|\\.)*+"'
_FLAT = re.compile(
    rf'\s*+\{{(?:\s*+{_TEXT}\s*+:\s*+(?:{_TEXT}|[^\s"\[\]{{}},]{{1,32}}+)\s*+,?+){{0,{MEMBERS_MAX}}}+\s*+\}}\s*+'.encode(),
    re.DOTALL,
)
"""What every request is, and cheap to tell: a megabyte of nested arrays would hold the node up while it is built."""


@unique
class ErrorKind(StrEnum):
    """What a guest can tell apart; the same in the WIT package and for ``command`` modules."""

    DENIED = "denied"
    CONFLICT = "conflict"
    QUOTA = "quota"
    NOT_FOUND = "not_found"
    INVALID = "invalid"
    FAILED = "failed"
    BUDGET = "budget"


class HostRefusal(Exception):  # noqa: N818 — an answer to the guest, not an error of the node
    """A host call is answered with an error; the invocation goes on."""

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class Members:
    """The members of a request object, each checked as it is taken. Every method raises `HostRefusal` (invalid)."""

    def __init__(self, values: Mapping[str, JsonValue]) -> None:
        self._values = values

    @classmethod
    def parse(cls, argument: bytes) -> Self:
        if len(argument) > ARGUMENT_BYTES_MAX:
            raise HostRefusal(ErrorKind.INVALID, f"expected at most {ARGUMENT_BYTES_MAX} bytes, got {len(argument)}")
        if argument and not _FLAT.fullmatch(argument):
            raise HostRefusal(ErrorKind.INVALID, f"expected a JSON object of at most {MEMBERS_MAX} texts and numbers")
        try:
            values = json.loads(argument) if argument else {}
        except (ValueError, RecursionError):
            raise HostRefusal(ErrorKind.INVALID, "expected a JSON object") from None
        if not isinstance(values, dict):
            raise HostRefusal(ErrorKind.INVALID, "expected a JSON object")
        return cls(values)

    def require_only(self, *names: str) -> None:
        if strange := sorted(self._values.keys() - set(names)):
            raise HostRefusal(ErrorKind.INVALID, f"expected only {', '.join(names)}, got {strange[0][:40]!r}")

    def text(self, name: str, *, default: str | None = None) -> str:
        value = self._values.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or not _is_utf8(value):
            raise HostRefusal(ErrorKind.INVALID, f"expected text in {name!r}")
        return value

    def count_or_none(self, name: str) -> int | None:
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _COUNT_MAX:
            raise HostRefusal(ErrorKind.INVALID, f"expected a count in {name!r}")
        return value


def answer_ok(value: JsonValue) -> bytes:
    return json.dumps({"ok": value}, ensure_ascii=False, separators=(",", ":")).encode()


def answer_error(refusal: HostRefusal) -> bytes:
    error = {"kind": str(refusal.kind), "message": refusal.message[:1_000]}
    return json.dumps({"error": error}, separators=(",", ":")).encode()


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
