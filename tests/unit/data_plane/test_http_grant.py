import base64
import json
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_plane.broker.amounts import Amount, Amounts
from data_plane.broker.answers import ErrorKind, HostRefusal, Members
from data_plane.broker.http_grant import (
    REQUEST_BYTES_MAX,
    EgressAmounts,
    OutgoingRequest,
    answer_of,
    is_under_one,
    joined_headers,
    outgoing,
    read_http_request,
)
from data_plane.broker.secret_binding import Secret, SecretUnusableError, require_bound, require_name
from sandbox.limits import SandboxLimits
from templates.charter import SecretBinding
from templates.grants import Grants, HttpGrant, HttpInjection
from templates.names import TemplateName, TemplatePattern

GRANT = HttpGrant(
    binding="crossref",
    origin="https://api.crossref.org",
    methods=("GET", "POST"),
    path_prefixes=("/works", "/v1/types/"),
    headers=("x-api-version",),
    inject=HttpInjection(header="Authorization", secret="crossref-token"),
)
GRANTS = Grants(
    http=(GRANT, HttpGrant(binding="all", origin="https://b.example", methods=("GET",), path_prefixes=("/",)))
)
BASE: dict[str, Any] = {"method": "GET", "path": "/works"}


def go(binding: str = "crossref", **members: Any) -> OutgoingRequest:
    return raw(json.dumps(BASE | members), binding)


def raw(text: str, binding: str = "crossref") -> OutgoingRequest:
    argument = json.dumps({"binding": binding, "request": text}).encode()
    return outgoing(GRANTS, read_http_request("fetch", Members.parse(argument)))


def refused(binding: str = "crossref", **members: Any) -> ErrorKind:
    with pytest.raises(HostRefusal) as caught:
        go(binding, **members)
    return caught.value.kind


def test_a_request_within_its_grant_leaves_as_it_was_meant() -> None:
    request = go(
        method="POST",
        path="/works/10.5555%2F12345678",
        query={"q": "a b&c=d", "filter": ["x", "é"]},
        headers={"Content-Type": "application/json", "X-Api-Version": "2"},
        body='{"é": 1}',
    )
    assert request.grant is GRANT
    assert request.target == "/works/10.5555%2F12345678?q=a%20b%26c%3Dd&filter=x&filter=%C3%A9"
    assert request.headers == (("content-type", "application/json"), ("x-api-version", "2"))
    assert request.body == '{"é": 1}'.encode()


def test_bytes_travel_as_base64() -> None:
    assert go(method="POST", body_base64=base64.b64encode(b"\x00\xff").decode()).body == b"\x00\xff"


PATHS_INSIDE = [
    "/works", "/works/", "/works/1", "/works/10.5555/12345678", "/works/10.5555%2F12345678", "/works/a%20b",
    "/works/...", "/works/a..b", "/works/.hidden", "/works/caf%C3%A9", "/works/%E6%96%87", "/works//twice",
    "/works/~a:b@c",
    "/works/a;v=1", "/works/100%25", "/v1/types/", "/v1/types/journal", "/works/%3Fq",
]  # fmt: skip
PATHS_OUTSIDE = [
    "/", "/workshop", "/Works", "/WORKS", "/v1/types", "/v1", "/v1/types%2Fx", "/works%2F1", "/works%2f..%2fadmin",
    "/admin",
    "/works/..", "/works/../admin", "/works/./x", "/works/.", "/../works", "/works/%2e%2e/admin",
    "/works/%2E%2E%2Fadmin",
    "/works/.%2e/admin", "/works/%2e./admin", "/works/..%2fadmin", "/works/..%5cadmin", "/works/%5c..%5cadmin",
    "/works/%2e",
    "/works/%252e%252e/admin", "/works/%252e%252e%252fadmin", "/works/%25252e%25252e/admin", "/works/..;/admin",
    "/works/..;a=b/admin", "/works/%2e%2e;/admin", "/works/..%3b/admin", "/works/..%00/admin", "/works/..%3fx",
    "/works/..%23x",
    "/works/..%20/admin", "/works/%20../admin", "/works/..%09/admin", "/works/%00", "/works/a%0d%0aX:1", "/works/%0a",
    "/works/%7f", "/works/%c2%85", "/works/%e2%80%a8", "/works/%ef%bc%8e%ef%bc%8e/admin",
    "/works/%ef%bc%8e%ef%bc%8e%ef%bc%8fadmin",
    "/works/%e2%80%a5/admin", "/works/%e2%80%a4%e2%80%a4/admin", "//evil.example/works", "/%2fevil.example",
    "/%5cevil.example",
    "/%2f%2fevil.example/works", "/works/..%25%32%66admin",
]  # fmt: skip
PATHS_INVALID = [
    "", "works", "*", "https://evil.example/works", "/works?q=1", "/works#x", "/works\\..\\admin", "/works/\r\nX: 1",
    "/works /",
    "/works\t", "/works\x00", "/works/é", "/works/．．/admin", "/works／..", "/works/%", "/works/%2", "/works/%zz",
    "/works/%u002e",
    "/works/%c0%ae%c0%ae/admin", "/works/%c0%af", "/works/%ff", "/works/%ed%a0%80", "/works/<x>",
    '/works/"', "/works/{x}",
    "/works/|", "/works/^", "/works/`", "/works/[x]", "/works/" + "a" * 3_000, "/works/%" + "25" * 20 + "2e",
    "@evil.example/works", ":8080/works", ".evil.example/works",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS_INSIDE)
def test_a_path_inside_is_sent_as_it_was_given(path: str) -> None:
    assert go(path=path).target == path


@pytest.mark.parametrize("path", PATHS_OUTSIDE)
def test_a_path_that_any_server_could_read_as_another_is_denied(path: str) -> None:
    assert refused(path=path) is ErrorKind.DENIED


@pytest.mark.parametrize("path", PATHS_INVALID)
def test_what_is_no_encoded_path_is_invalid(path: str) -> None:
    assert refused(path=path) is ErrorKind.INVALID


@pytest.mark.parametrize("path", [path for path in PATHS_OUTSIDE if "%2e" in path.lower() or ".." in path])
def test_dot_segments_are_denied_under_the_widest_grant_too(path: str) -> None:
    assert refused("all", path=path) is ErrorKind.DENIED


_PIECES = st.sampled_from([
    "/", "works", "..", ".", "%2e", "%2E%2e", "%2f", "%5c", "%252e", "%252f", "%25", ";", "a", "%ef%bc%8e", "%00",
    "%0a", "admin",
    "%20", "%3f", "%23", "~", "%C3%A9",
])  # fmt: skip


@given(st.lists(_PIECES, max_size=12).map(lambda pieces: "/works" + "".join(pieces)))
def test_no_accepted_path_leaves_its_prefix_however_often_it_is_decoded(path: str) -> None:
    """The model is a server that decodes, takes parameters off, folds separators and then resolves dot segments."""
    try:
        go(path=path)
    except HostRefusal:
        return
    for times in range(4):
        decoded = path
        for _ in range(times):
            decoded = unquote(decoded)
        resolved: list[str] = []
        for segment in decoded.replace("\\", "/").split("/"):
            bare = segment.split(";")[0].split("?")[0].strip()
            if bare == "..":
                resolved = resolved[:-1]
            elif bare not in {"", "."}:
                resolved.append(bare)
        assert resolved[0] == "works"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_any_text_is_a_path_once_it_is_encoded(text: str) -> None:
    """What the SDK does; only what is hidden in it is refused."""
    encoded = "/works/" + quote(text, safe="")
    harmless = text.isalnum() and text.isascii()
    try:
        assert go(path=encoded).target == encoded
    except HostRefusal:
        assert not harmless


@given(st.lists(st.tuples(st.text(max_size=10), st.text(max_size=10)), max_size=5, unique_by=lambda pair: pair[0]))
def test_a_query_arrives_as_the_names_and_values_that_were_given(pairs: list[tuple[str, str]]) -> None:
    try:
        target = go(query=dict(pairs)).target
    except HostRefusal:
        return
    assert parse_qsl(target.partition("?")[2], keep_blank_values=True) == pairs
    assert target.isascii()


@pytest.mark.parametrize(
    "value", ["a\r\nb", "a\nb", "a\x00b", "\x85", "\u2028", "\ud800", 5, None, True, {"a": "b"}, [["a"]]]
)
def test_a_query_value_that_is_no_plain_text_is_invalid(value: object) -> None:
    assert refused(query={"q": value}) is ErrorKind.INVALID
    assert refused(query={"q": [value]}) is ErrorKind.INVALID


HEADERS_OF_THE_BROKER = [
    "Host", "host", "HOST", "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Proxy-Connection",
    "TE", "Trailer",
    "Upgrade", "Expect", "Via", "Accept-Encoding", "Proxy-Authorization", "HTTP2-Settings", "Authorization",
    "authorization",
]  # fmt: skip


@pytest.mark.parametrize("name", HEADERS_OF_THE_BROKER)
def test_headers_of_the_connection_and_the_injected_one_belong_to_the_broker(name: str) -> None:
    assert refused(headers={name: "x"}) is ErrorKind.DENIED


@pytest.mark.parametrize(
    "name", ["Cookie", "X-Forwarded-For", "X-Other", "X-HTTP-Method-Override", "Origin", "Referer"]
)
def test_a_header_that_was_not_granted_is_denied(name: str) -> None:
    assert refused(headers={name: "x"}) is ErrorKind.DENIED


@pytest.mark.parametrize(
    "name",
    ["", " accept", "accept ", "accept:", "acc ept", "accept\r\nx", "accept\n", "accept\x00", "ａccept", "a(b)",
    "a" * 65, "é",
     "content-length\t", "transfer_encoding\x0b"],
)  # fmt: skip
def test_a_header_name_that_is_no_token_is_invalid(name: str) -> None:
    assert refused(headers={name: "x"}) is ErrorKind.INVALID


@pytest.mark.parametrize(
    "value",
    [
        "a\r\nHost: evil",
        "a\nb",
        "a\rb",
        "a\x00b",
        " a",
        "a ",
        "\ta",
        "é",
        "a\x7f",
        "\u2028",
        "a" * 2_049,
        5,
        None,
        ["a"],
    ],
)
def test_a_header_value_that_is_no_printable_ascii_is_invalid(value: object) -> None:
    assert refused(headers={"Accept": value}) is ErrorKind.INVALID


def test_a_header_is_given_once() -> None:
    assert refused(headers={"Accept": "a", "accept": "b"}) is ErrorKind.INVALID


def test_a_binding_and_a_method_that_were_not_granted_are_denied() -> None:
    assert refused("other") is ErrorKind.DENIED
    assert refused("CROSSREF") is ErrorKind.DENIED
    assert refused(method="DELETE") is ErrorKind.DENIED
    assert refused(method="get") is ErrorKind.DENIED
    assert refused(method="GET /admin HTTP/1.1\r\nX:") is ErrorKind.DENIED


@pytest.mark.parametrize(
    "members",
    [
        {"body": "x"},
        {"method": "POST", "body": "x", "body_base64": "eA=="},
        {"method": "POST", "body_base64": "e A=="},
        {"method": "POST", "body_base64": "eA"},
        {"method": "POST", "body_base64": "é"},
        {"method": "POST", "body": 5},
        {"method": "POST", "body": "\ud800"},
        {"url": "https://evil.example"},
        {"origin": "https://evil.example"},
        {"method": None},
        {"path": None},
        {"query": "a=b"},
        {"query": {f"n{number}": "v" for number in range(65)}},
        {"query": {"n": ["v"] * 65}},
        {"query": {"n": "v" * 9_000}},
        {"headers": ["a"]},
        {"headers": {f"x-{number}": "v" for number in range(33)}},
        {"headers": "Accept: x"},
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_request_out_of_shape_is_invalid(members: dict[str, Any]) -> None:
    assert refused(**members) is ErrorKind.INVALID


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "1",
        "{",
        '{"method": "GET", "path": "/works"} x',
        "{}",
        "[" * 100_000,
        '{"query": {"a": {"b": "c"}}}',
    ],
)
def test_what_is_no_request_is_invalid(text: str) -> None:
    with pytest.raises(HostRefusal) as caught:
        raw(text)
    assert caught.value.kind is ErrorKind.INVALID


def test_only_fetch_exists() -> None:
    with pytest.raises(HostRefusal, match="expected fetch"):
        read_http_request("open", Members({}))


def test_a_request_has_a_limit() -> None:
    assert len(go(method="POST", body="a" * (REQUEST_BYTES_MAX - 100)).body) == REQUEST_BYTES_MAX - 100
    assert refused(method="POST", body="a" * REQUEST_BYTES_MAX) is ErrorKind.INVALID


# --- amounts and answers

ALLOWED = EgressAmounts(requests_max=3, response_bytes_max=2_000)
LIMITS = SandboxLimits(sent_bytes=1_000, received_bytes=5_000)


def amounts_after(*, requests: int = 0, sent: int = 0, received: int = 0, above: Amounts | None = None) -> Amounts:
    amounts = Amounts(LIMITS, above)
    for _ in range(requests):
        amounts.take_http_request(requests)
    amounts.note(Amount.SENT_BYTES, sent)
    amounts.note(Amount.RECEIVED_BYTES, received)
    return amounts


@pytest.mark.parametrize(
    ("amounts", "allowed"),
    [
        (amounts_after(), 2_000),
        (amounts_after(requests=2, received=4_000), 1_000),
        (amounts_after(requests=3), None),
        (amounts_after(sent=1_000), None),
        (amounts_after(received=5_000), None),
        (amounts_after(received=9_000), None),
    ],
)
def test_an_invocation_may_send_and_receive_so_much(amounts: Amounts, allowed: int | None) -> None:
    before = amounts.http_requests
    if allowed is not None:
        assert ALLOWED.take(amounts) == allowed
        assert amounts.http_requests == before + 1
        return
    with pytest.raises(HostRefusal) as caught:
        ALLOWED.take(amounts)
    assert caught.value.kind is ErrorKind.BUDGET
    assert amounts.http_requests == before


def test_requests_made_below_count_above_and_those_made_beside_count_too() -> None:
    root = Amounts(LIMITS)
    left, right = Amounts(LIMITS, root), Amounts(LIMITS, root)
    below = Amounts(LIMITS, left)
    for each in (below, below, left):
        ALLOWED.take(each)
    assert [each.http_requests for each in (root, left, right, below)] == [3, 3, 0, 2]
    with pytest.raises(HostRefusal, match="at most 3 requests"):
        ALLOWED.take(right)


def test_what_language_models_sent_leaves_less_to_http() -> None:
    amounts = Amounts(LIMITS)
    amounts.settle(Amount.SENT_BYTES, 1_000)  # as data_plane.llm_calls does
    with pytest.raises(HostRefusal, match="left of sent_bytes"):
        ALLOWED.take(amounts)


def test_an_answer_is_text_where_it_can_be() -> None:
    assert answer_of(200, {"a": "b"}, "é".encode()) == {"status": 200, "headers": {"a": "b"}, "body": "é"}
    assert answer_of(200, {}, b"\xff") == {"status": 200, "headers": {}, "body_base64": "/w=="}


def test_headers_of_one_name_are_joined_and_those_of_the_connection_kept_back() -> None:
    headers = [("a", "1"), ("connection", "close"), ("a", "2"), ("content-encoding", "gzip"), ("content-length", "5")]
    assert joined_headers(headers) == {"a": "1, 2"}


# --- secrets

BINDING = SecretBinding(
    origin="https://api.crossref.org",
    header="authorization",
    path_prefixes=("/works",),
    methods=("GET",),
    templates=(TemplatePattern.parse("docs/*"),),
)
READER = TemplateName.parse("docs/reader")
INJECT = HttpInjection(header="Authorization", secret="crossref-token")


def bound(binding: SecretBinding | None, request: OutgoingRequest, template: TemplateName = READER) -> bool:
    try:
        require_bound({} if binding is None else {"crossref-token": binding}, INJECT, request, template)
    except HostRefusal as refusal:
        return refusal.kind is not ErrorKind.DENIED
    return True


def test_a_secret_goes_where_the_charter_binds_it_and_nowhere_else() -> None:
    get, post = go(), go(method="POST")
    assert bound(BINDING, get)
    assert bound(BINDING, go(path="/works/1%2F2", query={"q": "/types"}))
    assert not bound(None, get)
    assert not bound(BINDING, post)
    assert not bound(BINDING, get, TemplateName.parse("other/reader"))
    assert not bound(BINDING, go(path="/v1/types/x"))
    assert not bound(replace(BINDING, origin="https://api.crossref.org:8443"), get)
    assert not bound(replace(BINDING, header="x-key"), get)
    assert not bound(replace(BINDING, path_prefixes=("/works/1",)), get)
    assert not bound(replace(BINDING, path_prefixes=("/works/1",)), go(path="/works/1%2F2"))
    assert not bound(replace(BINDING, path_prefixes=()), get)
    assert not bound(replace(BINDING, templates=()), get)


def test_a_path_is_under_a_prefix_in_all_of_its_readings() -> None:
    assert is_under_one(["/a", "/b"], "/b/c%2Fd")
    assert not is_under_one(["/a/b"], "/a/b%2Fc")


@pytest.mark.parametrize(
    ("content", "value", "parts"),
    [
        (b"0123456789", "0123456789", ("0123456789",)),
        (b"0123456789\n", "0123456789", ("0123456789",)),
        (b"0123456789\r\n", "0123456789", ("0123456789",)),
        (b"Bearer 0123456789", "Bearer 0123456789", ("0123456789",)),
        (b"Basic dXNlcjpwYXNzd29yZA==", "Basic dXNlcjpwYXNzd29yZA==",
         ("dXNlcjpwYXNzd29yZA==", "user:password", "password")),
    ],
)  # fmt: skip
def test_a_secret_is_one_line_and_knows_what_must_not_come_back(
    content: bytes, value: str, parts: tuple[str, ...]
) -> None:
    secret = Secret.parse("token", content)
    assert (secret.value, secret.parts()) == (value, parts)
    assert value not in repr(secret)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"short", b"1234567", b"Bearer 1234567", b"Basic dTpwdw==", b"two\nlines-of-it", b"nul\x00nul-nul",
     b" 0123456789", b"0123456789 ", b"0123456789\n\n", "é23456789".encode(), b"\xff" * 10, b"0123456789\t",
     b"a" * 4_097],
)  # fmt: skip
def test_what_is_no_secret_is_refused_without_showing_it(content: bytes) -> None:
    with pytest.raises(SecretUnusableError) as caught:
        Secret.parse("token", content)
    assert not content.strip() or content.decode("latin-1").strip() not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["", "a", "../key", "a/b", ".hidden", "A-token", "a" * 42, "token\n", "tok en", "-token", "1token"]
)
def test_a_name_that_could_be_a_path_is_refused(name: str) -> None:
    with pytest.raises(SecretUnusableError):
        require_name(name)
