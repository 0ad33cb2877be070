"""The http grant: what a guest may ask of one binding, and what leaves the node when it does.

A guest never writes a URL. It names a binding of its template's approved grants, and gives a path, a query as names and
values, headers and a body; the origin comes from the grant. Steps of `outgoing`, deny by default:

H1  the request is the JSON that the interface says, within its sizes
H2  the method is the grant's
H3  the path is under one of the grant's prefixes however a server may read it (`_readings`)
H4  the query is encoded here, every byte of it
H5  each header is one that every agent may set, or the grant names it; none belongs to the connection
H6  a body goes with a method that has one
"""

import base64
import binascii
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from data_plane.broker.amounts import Amount, Amounts
from data_plane.broker.answers import ErrorKind, HostRefusal, Members
from sandbox.limits import HOST_CALL_BYTES_MAX
from templates.canonical import JsonObject, JsonValue
from templates.document import FRAMING_HEADERS
from templates.grants import Grants, HttpGrant, path_is_under

REQUEST_BYTES_MAX: Final = HOST_CALL_BYTES_MAX
PATH_BYTES_MAX: Final = 2_048
TARGET_BYTES_MAX: Final = 8_192
HEADERS_MAX: Final = 32
HEADER_VALUE_BYTES_MAX: Final = 2_048
QUERY_NAMES_MAX: Final = 64
QUERY_VALUES_MAX: Final = 64

HEADERS_OF_EVERY_AGENT: Final = frozenset({
    "accept", "accept-language", "cache-control", "content-language", "content-type", "if-match", "if-modified-since",
    "if-none-match", "if-unmodified-since", "prefer", "range", "idempotency-key", "user-agent",
})  # fmt: skip
"""They say what is sent and what is wanted back, never who asks."""

HEADERS_KEPT_BACK: Final = FRAMING_HEADERS | {"content-encoding", "keep-alive", "proxy-connection", "alt-svc"}
"""Of a response: they spoke of the connection, or of an encoding that the guest does not see any more."""

_METHODS_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_PATH: Final = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*+")
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_HEADER_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?|")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SEPARATORS: Final = re.compile(r"[/\\]")
_SEGMENT_END: Final = re.compile(r"[;?#]")
_DECODINGS_MAX: Final = 8

_TEXT: Final = r'"(?:[^"\\]++|\\.)*+"'
_LIST: Final = rf"\[(?:\s*+{_TEXT}\s*+,?+){{0,{QUERY_VALUES_MAX}}}+\s*+\]"
_PAIRS: Final = (
    rf"\{{(?:\s*+{_TEXT}\s*+:\s*+(?:{_TEXT}|{_LIST}|null)\s*+,?+){{0,{max(QUERY_NAMES_MAX, HEADERS_MAX)}}}+\s*+\}}"
)
_SHAPE: Final = re.compile(
    rf"\s*+\{{(?:\s*+{_TEXT}\s*+:\s*+(?:{_TEXT}|{_PAIRS}|null)\s*+,?+){{0,6}}+\s*+\}}\s*+", re.DOTALL
)
"""Cheap to tell, as for `Members`: megabytes of nested arrays would hold the node up while they are built."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """What a guest asked for, its shape checked and nothing else; header names are in lower case."""

    binding: str
    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingRequest:
    """What may leave the node, for the origin of ``grant``; the injected header is not in it yet."""

    grant: HttpGrant
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressAmounts:
    """What an operator lets one invocation have. ``response_bytes_max`` is that of one decoded body."""

    requests_max: int
    response_bytes_max: int

    def take(self, amounts: Amounts) -> int:
        """Count a request, and return how long the body of its response may be.

        What it sends and receives is counted in ``amounts`` when it is known; that it sends no more than is left is
        checked when it is encoded, before anything is sent.

        Raises:
            HostRefusal: ``budget``: nothing is left for another request.
        """
        for amount in (Amount.SENT_BYTES, Amount.RECEIVED_BYTES):
            if not amounts.left(amount):
                raise HostRefusal(ErrorKind.BUDGET, f"expected something left of {amount}, got nothing")
        amounts.take_http_request(self.requests_max)
        return min(amounts.left(Amount.RECEIVED_BYTES), self.response_bytes_max)


def require_granted(grants: Grants) -> None:
    """Raise `HostRefusal` (denied) where a template has no http grant at all."""
    if not grants.http:
        raise _denied("http was not granted")


def read_http_request(function: str, members: Members) -> HttpRequest:
    """Step H1.

    Raises:
        HostRefusal: kind ``invalid``.
    """
    if function != "fetch":
        raise _invalid(f"expected fetch, got {function[:40]!r}")
    members.require_only("binding", "request")
    binding, text = members.text("binding"), members.text("request")
    if len(text) > REQUEST_BYTES_MAX or not _SHAPE.fullmatch(text):
        raise _invalid("expected a request as JSON: method, path, query, headers, and body or body_base64")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise _invalid("expected a request as JSON") from None
    given = Members(value)
    given.require_only("method", "path", "query", "headers", "body", "body_base64")
    return HttpRequest(
        binding=binding,
        method=given.text("method"),
        path=given.text("path"),
        query=tuple(_query(value.get("query"))),
        headers=tuple(_headers(value.get("headers"))),
        body=_body(given),
    )


def outgoing(grants: Grants, request: HttpRequest) -> OutgoingRequest:
    """Steps H2–H6: judge a request by the template's grants.

    Raises:
        HostRefusal: ``denied`` for what the grant does not permit, ``invalid`` for what no grant could.
    """
    grant = next((each for each in grants.http if each.binding == request.binding), None)
    if grant is None:
        raise _denied(f"expected a binding that was granted, got {request.binding[:40]!r}")
    if request.method not in grant.methods:  # H2
        raise _denied(f"expected {' or '.join(grant.methods)} for {grant.binding}, got {request.method[:20]!r}")
    _require_path(grant, request.path)  # H3
    target = _target(request)  # H4
    headers = tuple(_permitted(grant, request.headers))  # H5
    if request.body and request.method not in _METHODS_WITH_BODY:  # H6
        raise _invalid(f"expected no body with {request.method}")
    return OutgoingRequest(grant=grant, method=request.method, target=target, headers=headers, body=request.body)


def answer_of(status: int, headers: Mapping[str, str], body: bytes) -> JsonObject:
    """Return the answer for the guest: the body as text where it is UTF-8, as base64 otherwise."""
    answer: dict[str, JsonValue] = {"status": status, "headers": dict(headers)}
    try:
        answer["body"] = body.decode()
    except UnicodeDecodeError:
        answer["body_base64"] = base64.b64encode(body).decode()
    return answer


def joined_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Join fields of one name (RFC 9110, section 5.3), without those that are kept back."""
    joined: dict[str, str] = {}
    for name, value in headers:
        if name not in HEADERS_KEPT_BACK:
            joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


# --- H1


def _query(value: JsonValue) -> Iterator[tuple[str, str]]:
    for name, given in _pairs(value, "query", QUERY_NAMES_MAX):
        for each in given if isinstance(given, list) else [given]:
            if not isinstance(each, str) or _CONTROL.search(each) or _CONTROL.search(name):
                raise _invalid(f"expected text without control characters in the query's {name[:40]!r}")
            yield name, each


def _headers(value: JsonValue) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for name, given in _pairs(value, "headers", HEADERS_MAX):
        lower = name.lower()
        if not _HEADER_NAME.fullmatch(name) or lower in seen:
            raise _invalid(f"expected the name of a header, once, got {name[:40]!r}")
        if not isinstance(given, str) or len(given) > HEADER_VALUE_BYTES_MAX or not _HEADER_VALUE.fullmatch(given):
            raise _invalid(f"expected printable ASCII in the header {lower}, at most {HEADER_VALUE_BYTES_MAX} bytes")
        seen.add(lower)
        yield lower, given


def _pairs(value: JsonValue, what: str, count_max: int) -> Iterator[tuple[str, JsonValue]]:
    if value is None:
        return
    if not isinstance(value, dict) or len(value) > count_max:
        raise _invalid(f"expected at most {count_max} names and values in {what!r}")
    yield from value.items()


def _body(given: Members) -> bytes:
    text, encoded = given.text("body", default=""), given.text("body_base64", default="")
    if text and encoded:
        raise _invalid("expected body or body_base64, got both")
    try:
        return base64.b64decode(encoded, validate=True) if encoded else text.encode()
    except (binascii.Error, ValueError):
        raise _invalid("expected base64 in 'body_base64'") from None


# --- H3


def _require_path(grant: HttpGrant, path: str) -> None:
    """Refuse a path that lies outside of the grant in any reading, or that two servers could read differently."""
    if len(path) > PATH_BYTES_MAX or not _PATH.fullmatch(path):
        raise _invalid("expected an absolute path, percent-encoded, without query and fragment")
    for reading in _readings(path):
        if _CONTROL.search(reading) or reading.startswith(("//", "/\\")) or any(_steps_out(reading)):
            raise _denied(f"expected a path without dot segments, hidden ones included, got {path[:100]!r}")
    if not is_under_one(grant.path_prefixes, path):
        raise _denied(
            f"expected a path below {' or '.join(grant.path_prefixes)} for {grant.binding}, got {path[:100]!r}"
        )


def is_under_one(prefixes: Iterable[str], path: str) -> bool:
    """Whether one of ``prefixes`` covers a path, that `outgoing` has let pass, in all of its readings."""
    readings = list(_readings(path))
    return any(all(path_is_under(prefix, reading) for reading in readings) for prefix in prefixes)


def _readings(path: str) -> Iterator[str]:
    """Yield how servers may read a path: as it is, decoded once, twice …, and each folded to compatible characters.

    Folding turns full-width dots and slashes into the plain ones, as some frameworks do.
    """
    reading = path
    for _ in range(_DECODINGS_MAX):
        yield reading
        if (folded := unicodedata.normalize("NFKC", reading)) != reading:
            yield folded
        try:
            decoded = unquote_to_bytes(reading).decode()
        except UnicodeDecodeError:  # overlong forms of a dot or slash, for instance
            raise _invalid("expected UTF-8 behind the percent signs of a path") from None
        if decoded == reading:
            return
        reading = decoded
    raise _invalid(f"expected a path that was encoded less than {_DECODINGS_MAX} times")


def _steps_out(reading: str) -> Iterator[bool]:
    """Tell of each segment whether a server could take it for ``.`` or ``..`` (``..;x``, ``.. ``)."""
    for segment in _SEPARATORS.split(reading):
        yield _SEGMENT_END.split(segment, maxsplit=1)[0].strip() in {".", ".."}


# --- H4, H5


def _target(request: HttpRequest) -> str:
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in request.query)
    target = f"{request.path}?{query}" if query else request.path
    if len(target) > TARGET_BYTES_MAX:
        raise _invalid(f"expected path and query of at most {TARGET_BYTES_MAX} bytes, got {len(target)}")
    return target


def _permitted(grant: HttpGrant, headers: tuple[tuple[str, str], ...]) -> Iterator[tuple[str, str]]:
    injected = grant.inject.header.lower() if grant.inject else ""
    for name, value in headers:
        if name in FRAMING_HEADERS or name == injected:
            raise _denied(f"expected headers that the agent may set, got {name}, which the broker sets")
        if name not in HEADERS_OF_EVERY_AGENT and name not in grant.headers:
            raise _denied(f"expected headers that {grant.binding} was granted, got {name}")
        yield name, value


def _invalid(message: str) -> HostRefusal:
    return HostRefusal(ErrorKind.INVALID, message)


def _denied(message: str) -> HostRefusal:
    return HostRefusal(ErrorKind.DENIED, message)
