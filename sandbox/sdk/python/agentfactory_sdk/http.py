"""Requests to the origins of the grant ``http``. There are no URLs: a binding names the origin, the node adds secrets.

    >>> from agentfactory_sdk import http
    >>> found = http.get("crossref", "/works", query={"query": "tree rings", "rows": 2})
    >>> found.status, found.json()["count"]
    (200, 2)
    >>> http.post("crossref", "/works", json={"title": "Tree rings"}).status
    201

A status of 400 and more is an answer, not an exception; ``raise_for_status`` makes it one:

    >>> http.get("crossref", "/works/missing").raise_for_status()
    Traceback (most recent call last):
    agentfactory_sdk.http.StatusError: expected a status below 400 from crossref, got 404

Paths are percent-encoded; ``http.path`` does that for the parts of one:

    >>> http.path("works", "10.5555/12 345")
    '/works/10.5555%2F12%20345'

Redirects are not followed: ``status`` and ``headers["location"]`` say where one points. What the grant does not permit
raises ``DeniedError``, what is too large ``QuotaError``, what took too long ``BudgetError``, and a server that cannot
be reached or understood ``FailedError``.
"""

import base64
import json as json_module
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from . import _host
from .errors import FailedError, HostError

Scalar = str | int | float | bool
Query = Mapping[str, Scalar | Iterable[Scalar] | None]


class StatusError(HostError):
    """``Response.raise_for_status`` found a status of 400 or more; ``response`` is the whole of it."""

    def __init__(self, message: str, response: "Response") -> None:
        super().__init__(message)
        self.response = response


@dataclass(frozen=True, slots=True)
class Response:
    """What came back; ``headers`` have lower-case names, ``content`` is decompressed."""

    binding: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    content: bytes = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The body as UTF-8, with replacement characters where it is not."""
        return self.content.decode("utf-8", "replace")

    def json(self) -> object:
        """The body as JSON.

        Raises:
            ValueError: it is not JSON.
        """
        return json_module.loads(self.content)

    def raise_for_status(self) -> "Response":
        """Return this response, or raise ``StatusError`` for a status of 400 and more."""
        if self.status >= 400:
            raise StatusError(f"expected a status below 400 from {self.binding}, got {self.status}", self)
        return self


def request(
    binding: str,
    method: str,
    path: str,
    *,
    query: Query | None = None,
    headers: Mapping[str, str] | None = None,
    body: str | bytes | None = None,
    json: object = None,
) -> Response:
    """Make one request and return what came back.

    Args:
        binding: the name of an ``http`` grant.
        method: one of the grant's methods.
        path: below one of the grant's prefixes, percent-encoded.
        query: names and values; a sequence repeats its name, None leaves it out.
        headers: those that every agent may set (``accept``, ``content-type`` …) and those of the grant.
        body: text (UTF-8) or bytes.
        json: sent as JSON, with its content type; instead of ``body``.

    Raises:
        HostError: see above.
        TypeError: both ``body`` and ``json``.
    """
    if json is not None and body is not None:
        raise TypeError("expected body or json, got both")
    wanted: dict[str, object] = {"method": method, "path": path}
    given = dict(headers or {})
    if json is not None:
        body = json_module.dumps(json, ensure_ascii=False, allow_nan=False)
        if "content-type" not in {name.lower() for name in given}:
            given["content-type"] = "application/json"
    if query:
        wanted["query"] = {name: _values(value) for name, value in query.items() if value is not None}
    if given:
        wanted["headers"] = given
    if isinstance(body, bytes):
        wanted["body_base64"] = base64.b64encode(body).decode()
    elif body is not None:
        wanted["body"] = body
    answer = json_module.loads(_host.current().http_fetch(binding, json_module.dumps(wanted, ensure_ascii=False)))
    return _response(binding, answer)


def get(binding: str, path: str, *, query: Query | None = None, headers: Mapping[str, str] | None = None) -> Response:
    """``request`` with GET."""
    return request(binding, "GET", path, query=query, headers=headers)


def head(binding: str, path: str, *, query: Query | None = None, headers: Mapping[str, str] | None = None) -> Response:
    """``request`` with HEAD."""
    return request(binding, "HEAD", path, query=query, headers=headers)


def delete(
    binding: str, path: str, *, query: Query | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """``request`` with DELETE."""
    return request(binding, "DELETE", path, query=query, headers=headers)


def post(
    binding: str,
    path: str,
    *,
    query: Query | None = None,
    headers: Mapping[str, str] | None = None,
    body: str | bytes | None = None,
    json: object = None,
) -> Response:
    """``request`` with POST."""
    return request(binding, "POST", path, query=query, headers=headers, body=body, json=json)


def put(
    binding: str,
    path: str,
    *,
    query: Query | None = None,
    headers: Mapping[str, str] | None = None,
    body: str | bytes | None = None,
    json: object = None,
) -> Response:
    """``request`` with PUT."""
    return request(binding, "PUT", path, query=query, headers=headers, body=body, json=json)


def patch(
    binding: str,
    path: str,
    *,
    query: Query | None = None,
    headers: Mapping[str, str] | None = None,
    body: str | bytes | None = None,
    json: object = None,
) -> Response:
    """``request`` with PATCH."""
    return request(binding, "PATCH", path, query=query, headers=headers, body=body, json=json)


def path(*parts: str) -> str:
    """The path of these parts, each percent-encoded as a whole: a slash inside of one stays inside of it."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


def _values(value: Scalar | Iterable[Scalar]) -> str | list[str]:
    if isinstance(value, str | int | float | bool):
        return _text(value)
    return [_text(each) for each in value]


def _text(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _response(binding: str, answer: dict[str, object]) -> Response:
    status, headers, body, encoded = (answer.get(name) for name in ("status", "headers", "body", "body_base64"))
    if not isinstance(status, int) or not isinstance(headers, dict):
        raise FailedError("the node gave an answer that this SDK does not know")
    content = base64.b64decode(encoded) if isinstance(encoded, str) else str(body or "").encode()
    return Response(binding, status, headers, content)
