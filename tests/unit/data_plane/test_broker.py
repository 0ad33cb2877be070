"""What the broker lets a guest ask: requests read as from an attacker, grants, quotas, budgets."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_plane.broker.agents_grant import (
    Budget,
    ChildRequest,
    child_limits,
    read_child_request,
    require_callee,
    require_permitted,
)
from data_plane.broker.answers import ErrorKind, HostRefusal, Members, answer_error, answer_ok
from data_plane.broker.kv_grant import (
    KvDelete,
    KvEntry,
    KvGet,
    KvList,
    KvPut,
    read_kv_request,
    require_expected,
    used_after_put,
)
from sandbox.limits import SandboxLimits
from templates.grants import Grants, KvGrant
from templates.names import TemplateName, TemplatePattern
from templates.resolved import ResolvedTemplate
from tests.trust_world import template

GRANT = KvGrant(namespace="n", bytes_max=10)
CALLER = TemplateName("docs", "caller")


def kind_of(refusal: pytest.ExceptionInfo[HostRefusal]) -> ErrorKind:
    return refusal.value.kind


@pytest.mark.parametrize(
    ("function", "argument", "request_"),
    [
        ("get", {"key": "k"}, KvGet(key="k")),
        ("put", {"key": "k", "value": "v"}, KvPut(key="k", value="v", expected=None)),
        ("put", {"key": "k", "value": "", "expected": 0}, KvPut(key="k", value="", expected=0)),
        ("delete", {"key": "k", "expected": 7}, KvDelete(key="k", expected=7)),
        ("list", {}, KvList(prefix="", after="", count_max=1000)),
        ("list", {"prefix": "a", "cursor": "b", "limit": 5}, KvList(prefix="a", after="b", count_max=5)),
        ("list", {"cursor": None, "limit": 10**9}, KvList(prefix="", after="", count_max=1000)),
    ],
)
def test_kv_requests_are_read(function: str, argument: dict[str, object], request_: object) -> None:
    assert read_kv_request(function, Members.parse(json.dumps(argument).encode())) == request_


@pytest.mark.parametrize(
    ("function", "argument"),
    [
        ("get", b""),
        ("get", b"[]"),
        ("get", b"\xff"),
        ("get", b'{"key": 5}'),
        ("get", b'{"key": ""}'),
        ("get", b'{"key": "a\\u0000b"}'),
        ("get", b'{"key": "\\ud800"}'),
        ("get", json.dumps({"key": "é" * 257}).encode()),
        ("get", b'{"key": "k", "tenant": "rival"}'),
        ("get", b"[" * 100_000),
        ("put", b'{"key": "k"}'),
        ("put", b'{"key": "k", "value": {"a": 1}}'),
        ("put", b'{"key": "k", "value": "v", "expected": -1}'),
        ("put", b'{"key": "k", "value": "v", "expected": true}'),
        ("put", b'{"key": "k", "value": "v", "expected": 1.5}'),
        ("put", b'{"key": "k", "value": "v", "expected": 9007199254740992}'),
        ("list", b'{"limit": "5"}'),
        ("drop", b"{}"),
        ("", b"{}"),
    ],
)
def test_what_is_not_a_kv_request_is_refused_as_invalid(function: str, argument: bytes) -> None:
    with pytest.raises(HostRefusal) as refusal:
        read_kv_request(function, Members.parse(argument))
    assert kind_of(refusal) is ErrorKind.INVALID


def test_an_argument_over_its_cap_is_not_even_parsed() -> None:
    with pytest.raises(HostRefusal):
        Members.parse(b'"' + b"x" * (17 * 1024 * 1024) + b'"')


@pytest.mark.parametrize(
    ("found", "expected", "kind"),
    [
        (None, None, None),
        (None, 0, None),
        (None, 3, ErrorKind.NOT_FOUND),
        (KvEntry("v", 3), None, None),
        (KvEntry("v", 3), 3, None),
        (KvEntry("v", 3), 0, ErrorKind.CONFLICT),
        (KvEntry("v", 3), 4, ErrorKind.CONFLICT),
    ],
)
def test_compare_before_write(found: KvEntry | None, expected: int | None, kind: ErrorKind | None) -> None:
    if kind is None:
        require_expected(found, expected)
    else:
        with pytest.raises(HostRefusal) as refusal:
            require_expected(found, expected)
        assert kind_of(refusal) is kind


@given(used=st.integers(0, 20), old=st.none() | st.text(max_size=12), new=st.text(max_size=12))
def test_the_quota_holds_and_freeing_is_never_refused(used: int, old: str | None, new: str) -> None:
    found = None if old is None else KvEntry(old, 1)
    size = len(new.encode()) + 1
    before = 0 if old is None else len(old.encode()) + 1
    request = KvPut(key="k", value=new, expected=None)
    total = used - before + size
    if total <= GRANT.bytes_max or size <= before:
        assert used_after_put(request, found, used_bytes=used, grant=GRANT) == total
    else:
        with pytest.raises(HostRefusal) as refusal:
            used_after_put(request, found, used_bytes=used, grant=GRANT)
        assert kind_of(refusal) is ErrorKind.QUOTA


def test_answers_are_plain_json() -> None:
    assert json.loads(answer_ok({"a": "é"})) == {"ok": {"a": "é"}}
    long = answer_error(HostRefusal(ErrorKind.DENIED, "x" * 5_000))
    assert json.loads(long)["error"]["kind"] == "denied"
    assert len(long) < 1_100


# Agents


@pytest.mark.parametrize(
    ("argument", "name", "version"),
    [
        ('{"template":"docs/a1","input":"x"}', "docs/a1", ""),
        ('{"template":"docs/a1@1.2.3","input":""}', "docs/a1", "1.2.3"),
    ],
)
def test_child_requests_are_read(argument: str, name: str, version: str) -> None:
    request = read_child_request("invoke", Members.parse(argument.encode()))
    assert (str(request.template), request.version) == (name, version)


@pytest.mark.parametrize(
    ("function", "argument"),
    [
        ("create", '{"template":"docs/a1","input":"x"}'),
        ("invoke", '{"template":"a1","input":"x"}'),
        ("invoke", '{"template":"docs/*","input":"x"}'),
        ("invoke", '{"template":"docs/a1@x","input":"x"}'),
        ("invoke", '{"template":"docs/a1"}'),
        ("invoke", '{"template":"docs/a1","input":{}}'),
        ("invoke", '{"template":"docs/a1","input":"x","config":{}}'),
        ("invoke", '{"template":"docs/a1","input":"x","tenant":"rival"}'),
    ],
)
def test_what_is_not_a_child_request_is_refused(function: str, argument: str) -> None:
    with pytest.raises(HostRefusal) as refusal:
        read_child_request(function, Members.parse(argument.encode()))
    assert kind_of(refusal) is ErrorKind.INVALID


def child(name: str, version: str = "") -> ChildRequest:
    return ChildRequest(template=TemplateName.parse(name), version=version, input="")


def callee(*callers: str) -> ResolvedTemplate:
    return template(callers=tuple(TemplatePattern.parse(each) for each in callers))


def test_only_granted_templates_may_be_invoked() -> None:
    grants = Grants(agents=(TemplatePattern.parse("docs/one"), TemplatePattern.parse("legal/*")))
    require_permitted(CALLER, grants, child("docs/one"))
    require_permitted(CALLER, grants, child("legal/any"))
    for name in ("docs/two", "docs/one2", "other/one"):
        with pytest.raises(HostRefusal) as refusal:
            require_permitted(CALLER, grants, child(name))
        assert kind_of(refusal) is ErrorKind.DENIED
    with pytest.raises(HostRefusal):
        require_permitted(CALLER, Grants(), child("docs/one"))


@pytest.mark.parametrize("callers", [["docs/caller"], ["docs/*"], ["*/*"]])
def test_the_callee_must_name_its_caller(callers: list[str]) -> None:
    one = callee(*callers)
    request = child(str(one.ref.template_name))
    assert require_callee(CALLER, request, one) is one


@pytest.mark.parametrize("callers", [[], ["docs/other"], ["legal/*"]])
def test_a_callee_that_does_not_name_its_caller_denies(callers: list[str]) -> None:
    one = callee(*callers)
    with pytest.raises(HostRefusal) as refusal:
        require_callee(CALLER, child(str(one.ref.template_name)), one)
    assert kind_of(refusal) is ErrorKind.DENIED


def test_what_is_not_active_is_not_found() -> None:
    one = callee("*/*")
    for request, found in [
        (child("docs/nobody"), None),
        (child(str(one.ref.template_name), "9.9.9"), one),
    ]:
        with pytest.raises(HostRefusal) as refusal:
            require_callee(CALLER, request, found)
        assert kind_of(refusal) is ErrorKind.NOT_FOUND


OWN = SandboxLimits(fuel=1_000, wall_ms=10_000, host_calls=50)


def test_a_child_gets_what_its_caller_has_left_and_never_more_than_its_own() -> None:
    budget = Budget(fuel=500, host_calls=80, deadline=103.0, depth=0)
    limits = child_limits(OWN, budget, depth_max=2, now=100.0)
    assert (limits.fuel, limits.wall_ms, limits.host_calls) == (500, 3_000, 50)
    budget.spend(fuel=400, host_calls=79)
    limits = child_limits(OWN, budget, depth_max=2, now=100.0)
    assert (limits.fuel, limits.host_calls) == (100, 1)
    assert (budget.children, budget.spent_fuel, budget.spent_host_calls) == (1, 400, 79)


@pytest.mark.parametrize(
    "budget",
    [
        Budget(fuel=0, host_calls=1, deadline=200.0, depth=0),
        Budget(fuel=1, host_calls=1, deadline=100.001, depth=0),
        Budget(fuel=1, host_calls=1, deadline=99.0, depth=0),
        Budget(fuel=1, host_calls=1, deadline=200.0, depth=2),
    ],
)
def test_nothing_left_is_nothing_given(budget: Budget) -> None:
    with pytest.raises(HostRefusal) as refusal:
        child_limits(OWN, budget, depth_max=2, now=100.0)
    assert kind_of(refusal) is ErrorKind.BUDGET


@given(st.lists(st.tuples(st.integers(0, 600), st.integers(0, 60)), max_size=20))
def test_children_together_never_get_more_than_their_caller_had(costs: list[tuple[int, int]]) -> None:
    budget = Budget(fuel=1_000, host_calls=100, deadline=200.0, depth=0)
    given_fuel = 0
    for fuel, host_calls in costs:
        try:
            limits = child_limits(OWN, budget, depth_max=2, now=100.0)
        except HostRefusal:
            break
        used = min(fuel, limits.fuel)
        given_fuel += used
        budget.spend(fuel=used, host_calls=min(host_calls, limits.host_calls))
    assert given_fuel <= 1_000


def test_what_a_caller_burned_itself_is_not_there_for_children_and_theirs_is_charged_to_it() -> None:
    budget = Budget(fuel=500, host_calls=80, deadline=200.0, depth=0)
    budget.meter.used = 120
    assert child_limits(OWN, budget, depth_max=2, now=100.0).fuel == min(OWN.fuel, 380)
    budget.spend(fuel=300, host_calls=1)
    assert budget.meter.charged == 300
    assert child_limits(OWN, budget, depth_max=2, now=100.0).fuel == min(OWN.fuel, 80)
    budget.meter.used = 200
    with pytest.raises(HostRefusal) as refusal:
        child_limits(OWN, budget, depth_max=2, now=100.0)
    assert kind_of(refusal) is ErrorKind.BUDGET
