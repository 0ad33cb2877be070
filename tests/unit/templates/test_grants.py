import pytest
from hypothesis import given

from templates.canonical import canonical_bytes
from templates.grants import NO_GRANTS, FileGrant, Grants, HttpGrant, HttpInjection, KvGrant, LlmGrant, path_is_under
from templates.names import TemplateName, TemplatePattern
from tests.unit.templates import documents

HTTP = HttpGrant(
    binding="crossref",
    origin="https://api.crossref.org",
    methods=("GET", "HEAD"),
    path_prefixes=("/works", "/types"),
    headers=("x-api-version",),
    inject=HttpInjection(header="Authorization", secret="crossref-token"),
)
WHOLE = Grants(
    kv=KvGrant(namespace="notes", bytes_max=100),
    http=(HTTP,),
    llm=(LlmGrant(binding="default", models=("big", "small"), tokens_max=100),),
    agents=(TemplatePattern("docs", "*"), TemplatePattern("code", "base")),
    files=(FileGrant(mount="/data", export="corpus", mode="ro"),),
)


def _http(**members: object) -> Grants:
    known = {
        name: getattr(HTTP, name) for name in ("binding", "origin", "methods", "path_prefixes", "headers", "inject")
    }
    return Grants(http=(HttpGrant(**{**known, **members}),))


WIDER = [
    (Grants(kv=KvGrant(namespace="other", bytes_max=1)), "/kv/namespace"),
    (Grants(kv=KvGrant(namespace="notes", bytes_max=101)), "/kv/bytes_max"),
    (Grants(kv=KvGrant(namespace="*", bytes_max=1)), "/kv/namespace"),
    (_http(binding="other"), "/http/0/binding"),
    (_http(origin="https://api.crossref.org.evil.example"), "/http/0/origin"),
    (_http(origin="*"), "/http/0/origin"),
    (_http(methods=("GET", "POST")), "/http/0/methods/1"),
    (_http(path_prefixes=("/",)), "/http/0/path_prefixes/0"),
    (_http(path_prefixes=("/works", "/workshop")), "/http/0/path_prefixes/1"),
    (_http(headers=("x-api-version", "cookie")), "/http/0/headers/1"),
    (_http(inject=HttpInjection(header="X-Other", secret="crossref-token")), "/http/0/inject/header"),
    (_http(inject=HttpInjection(header="Authorization", secret="other")), "/http/0/inject/secret"),
    (Grants(llm=(LlmGrant(binding="large", models=("big",), tokens_max=1),)), "/llm/0/binding"),
    (Grants(llm=(LlmGrant(binding="default", models=("huge",), tokens_max=1),)), "/llm/0/models/0"),
    (Grants(llm=(LlmGrant(binding="default", models=("big",), tokens_max=101),)), "/llm/0/tokens_max"),
    (Grants(agents=(TemplatePattern("docs", "base"), TemplatePattern("code", "writer"))), "/agents/1"),
    (Grants(agents=(TemplatePattern("*", "*"),)), "/agents/0"),
    (Grants(files=(FileGrant(mount="/other", export="corpus", mode="ro"),)), "/files/0/mount"),
    (Grants(files=(FileGrant(mount="/data", export="other", mode="ro"),)), "/files/0/export"),
    (Grants(files=(FileGrant(mount="/data", export="corpus", mode="rw"),)), "/files/0/mode"),
]
NARROWER = [
    NO_GRANTS,
    Grants(kv=KvGrant(namespace="notes", bytes_max=1)),
    _http(methods=("HEAD",), path_prefixes=("/works/one", "/types/"), headers=(), inject=None),
    Grants(llm=(LlmGrant(binding="default", models=("small",), tokens_max=100),)),
    Grants(agents=(TemplatePattern("docs", "base"), TemplatePattern("docs", "*"))),
    WHOLE,
]


@pytest.mark.parametrize(("wider", "pointer"), WIDER, ids=lambda value: str(value)[:60])
def test_whatever_permits_more_is_named_by_its_place(wider: Grants, pointer: str) -> None:
    assert [place.pointer for place in WHOLE.excess(wider)] == [pointer]
    assert not WHOLE.covers(wider)


@pytest.mark.parametrize("wider", [wider for wider, _ in WIDER], ids=lambda value: str(value)[:60])
def test_without_grants_everything_is_too_much(wider: Grants) -> None:
    assert NO_GRANTS.excess(wider)


@pytest.mark.parametrize("narrower", NARROWER, ids=lambda value: str(value)[:60])
def test_what_permits_no_more_is_covered(narrower: Grants) -> None:
    assert WHOLE.excess(narrower) == ()


def test_an_injection_that_the_parent_did_not_have_is_wider() -> None:
    assert [place.pointer for place in _http(inject=None).excess(_http())] == [
        "/http/0/inject/header",
        "/http/0/inject/secret",
    ]


def test_one_grant_must_cover_another_alone() -> None:
    split = Grants(http=(*_http(methods=("GET",)).http, *_http(methods=("POST",)).http))
    assert split.excess(_http(methods=("GET", "POST")))


def test_a_ceiling_speaks_of_any_name() -> None:
    ceiling = Grants(
        kv=KvGrant(namespace="*", bytes_max=100),
        http=_http(
            binding="*",
            origin="*",
            methods=("*",),
            path_prefixes=("/",),
            headers=("*",),
            inject=HttpInjection(header="*", secret="*"),
        ).http,
        llm=(LlmGrant(binding="*", models=("*",), tokens_max=100),),
        agents=(TemplatePattern("*", "*"),),
        files=(FileGrant(mount="*", export="*", mode="rw"),),
    )
    assert ceiling.covers(WHOLE)
    assert WHOLE.narrowed_by(ceiling) == WHOLE.ordered()


@pytest.mark.parametrize(
    ("prefix", "path", "covered"),
    [
        ("/", "/", True), ("/", "/a", True), ("/a", "/a", True), ("/a", "/a/b", True), ("/a", "/ab", False),
        ("/a/", "/a/b", True), ("/a/", "/a", False), ("/a/b", "/a", False), ("/a", "/A", False),
    ],
)  # fmt: skip
def test_a_prefix_covers_whole_segments(prefix: str, path: str, covered: bool) -> None:  # noqa: FBT001 - a table
    assert path_is_under(prefix, path) is covered


def test_permission_to_invoke_follows_the_patterns() -> None:
    assert WHOLE.permits_agent(TemplateName("docs", "anything"))
    assert WHOLE.permits_agent(TemplateName("code", "base"))
    assert not WHOLE.permits_agent(TemplateName("code", "other"))


def test_interfaces_are_those_of_the_grants() -> None:
    assert WHOLE.interfaces() == {"kv", "http", "llm", "agents", "files"}
    assert NO_GRANTS.interfaces() == frozenset()


@given(documents.grants)
def test_grants_cover_themselves(grants: Grants) -> None:
    assert grants.covers(grants)
    assert grants.covers(grants.ordered())
    assert grants.ordered().covers(grants)


@given(documents.grants, documents.grants, documents.grants)
def test_covering_is_transitive(first: Grants, second: Grants, third: Grants) -> None:
    narrow, narrower = first.narrowed_by(second), first.narrowed_by(second).narrowed_by(third)
    assert first.covers(narrower)
    if first.covers(second) and second.covers(third):
        assert first.covers(third)
    assert narrow.covers(narrower)


@given(documents.grants, documents.grants)
def test_what_is_narrowed_is_covered_by_both_and_no_narrower_than_needed(first: Grants, second: Grants) -> None:
    narrowed = first.narrowed_by(second)
    assert first.covers(narrowed)
    assert second.covers(narrowed)
    assert narrowed.covers(second.narrowed_by(first))
    if first.covers(second):
        assert narrowed.covers(second)


@given(documents.grants)
def test_what_is_written_is_read_and_has_one_form(grants: Grants) -> None:
    written = grants.to_json()
    read = Grants.from_json(written)
    assert read == grants.ordered()
    assert canonical_bytes(read.to_json()) == canonical_bytes(written)
