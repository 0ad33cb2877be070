"""Admission policies: where a text is wrong, what is asked, who denies, and that nothing broken ever permits."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from templates.capabilities import derive, host_interface
from templates.comparison import Direction, difference
from templates.policies.comparison import policy_entries
from templates.policies.decision import PolicyDeniedError, Verdict, decide
from templates.policies.facts import (
    Action,
    Circumstances,
    Principal,
    Question,
    Subject,
    invented_subject,
    subject_of,
    version_ref,
)
from templates.policies.policy_set import InvalidPolicyError, PolicySet, default_policies, policies_of, read_policies
from templates.reach import ThroughAgents, through_agents
from templates.reasons import Reason
from tests.unit.templates.documents import MODULE, report, resolved

ADMIT = '@id("admit") permit (principal, action, resource);\n'
NOW = datetime(2026, 12, 24, 10, 30, tzinfo=UTC)


def policies(text: str) -> PolicySet:
    return read_policies({"a.cedar": ADMIT + text})


def subject(labels: Mapping[str, str] | None = None, **attributes: Any) -> Subject:
    return invented_subject(version_ref("docs/reader"), author="ana", attributes=attributes, labels=labels or {})


def ask(
    found: PolicySet,
    about: Subject,
    *,
    action: Action = Action.SUBMIT,
    principal: Principal | None = None,
    now: datetime = NOW,
    mode: str = "production",
    approvers: frozenset[str] = frozenset(),
    break_glass: bool = False,
) -> Verdict:
    around = Circumstances(
        now=now, environment="test", mode=mode, approvers=approvers, threshold=2, break_glass=break_glass
    )
    asker = principal or Principal.of("ana", [])
    return decide(found, Question(action=action, principal=asker, subject=about, circumstances=around))


def denied_by(verdict: Verdict) -> list[tuple[str, str]]:
    return [(each.name, each.place) for each in verdict.denials]


def problems(files: Mapping[str, str]) -> list[tuple[str, int, int, str]]:
    with pytest.raises(InvalidPolicyError) as caught:
        read_policies(files)
    assert caught.value.reason is Reason.POLICY_INVALID
    found = caught.value.found
    return [(each.file, each.problem.line, each.problem.column, str(each.problem.code)) for each in found]


@pytest.mark.parametrize(
    ("text", "line", "column", "code"),
    [
        ("permit(principal, action, resource", 2, 27, "POLICY_SYNTAX"),
        ("permit(principal, action, resource)", 2, 35, "POLICY_SYNTAX"),
        ('@id("xx")\nforbid(principal, action, resource) when {\n  1 + };', 4, 7, "POLICY_SYNTAX"),
        ('// é\n@id("xx") forbid(principal, action, resource) when { "é" == \n\n  ) };', 5, 3, "POLICY_SYNTAX"),
        ('@id("xx") forbid(principal, action, resource) when { "abc };', 2, 54, "POLICY_SYNTAX"),
        ('@id("xx") forbid(principal, action, resource) when {\n ask(1) };', 3, 2, "POLICY_SYNTAX"),
        ('@id("xx") forbid(principal == ?principal, action, resource);', 2, 1, "POLICY_SYNTAX"),
        ('@id("xx") forbid(principal, action, resource)\nwhen { resource.nme == "x" };', 3, 17, "POLICY_TYPE"),
        ('@id("xx") forbid(principal, action, resource) when { resource.examples };', 2, 63, "POLICY_TYPE"),
        ('@id("xx") forbid(principal, action, resource) when { context.model == "m" };', 2, 62, "POLICY_TYPE"),
        ("forbid(principal, action, resource);", 2, 1, "POLICY_NAME"),
        ('@id("Xx") forbid(principal, action, resource);', 2, 2, "POLICY_NAME"),
        ('@id("xx") @mesage("m") forbid(principal, action, resource);', 2, 12, "POLICY_NAME"),
        ('@id("xx") @place("labels") forbid(principal, action, resource);', 2, 12, "POLICY_NAME"),
        ('@id("xx") @break_glass("always") forbid(principal, action, resource);', 2, 12, "POLICY_NAME"),
        ("// a \u202e trick\n", 2, 6, "INVALID_VALUE"),
        ("// a \x1b[2J trick\n", 2, 6, "INVALID_VALUE"),
    ],
)
def test_each_problem_is_found_at_its_place(text: str, line: int, column: int, code: str) -> None:
    found = problems({"a.cedar": ADMIT + text})
    if "examples" in text:  # the engine names no token when a condition is not a truth value
        assert (found[0][0], found[0][3]) == ("a.cedar", code)
        return
    assert found == [("a.cedar", line, column, code)]


def test_every_problem_of_every_file_is_shown_at_once() -> None:
    found = problems({"a.cedar": "forbid(", "b.cedar": ADMIT + "permit)", "c.cedar": ADMIT})
    assert [(file, line) for file, line, *_ in found] == [("a.cedar", 1), ("b.cedar", 2)]


def test_two_policies_of_one_name_are_refused_both() -> None:
    assert problems({"a.cedar": ADMIT, "b.cedar": "\n" + ADMIT}) == [
        ("a.cedar", 1, 2, "POLICY_NAME"),
        ("b.cedar", 2, 2, "POLICY_NAME"),
    ]


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"a.cedar": ""},
        {"a.cedar": '@id("nothing") forbid (principal, action, resource);'},
        {"../a.cedar": ADMIT},
        {"a.txt": ADMIT},
        {"a.cedar": ADMIT + "// " + "x" * 131_072},
        {f"a{number}.cedar": ADMIT for number in range(33)},
        {"a.cedar": "".join(f'@id("p{number}") permit (principal, action, resource);' for number in range(501))},
    ],
)
def test_sets_that_are_empty_too_large_or_permit_nothing_are_refused(files: dict[str, str]) -> None:
    assert {code for *_, code in problems(files)} <= {"INVALID_VALUE", "INVALID_NAME"}


def test_a_denial_names_the_policy_its_message_and_its_place() -> None:
    found = policies(
        '@id("team-label") @message("name your team") @place("/labels/team")\n'
        'forbid (principal, action, resource) unless { resource.hasTag("team") };'
    )
    verdict = ask(found, subject())
    assert denied_by(verdict) == [("team-label", "/labels/team")]
    with pytest.raises(PolicyDeniedError) as caught:
        verdict.require("docs/reader@1.0.0")
    assert caught.value.reason is Reason.POLICY_DENIED
    assert "team-label at /labels/team: name your team" in caught.value.message
    assert (caught.value.metadata["policy"], caught.value.metadata["place"]) == ("team-label", "/labels/team")
    assert ask(found, subject(labels={"team": "docs"})).is_permitted


def test_origins_are_asked_one_by_one_so_that_a_pattern_binds_each() -> None:
    found = policies(
        '@id("ours-only") forbid (principal, action, resource)\n'
        'when { context has origin && !(context.origin.host like "*.example.com" && context.origin.port == 443) };'
    )
    good = ["https://a.example.com", "https://b.example.com"]
    assert ask(found, subject(origins=good)).is_permitted
    verdict = ask(found, subject(origins=[*good, "https://evil.test", "https://example.com:8443"]))
    assert denied_by(verdict) == [("ours-only", "/grants/http/2"), ("ours-only", "/grants/http/3")]


def test_what_is_denied_as_a_whole_is_not_said_again_of_each_origin() -> None:
    verdict = ask(policies('@id("no") forbid (principal, action, resource);'), subject(origins=["https://a.test"]))
    assert denied_by(verdict) == [("no", "")]


def test_models_and_forbidden_combinations() -> None:
    found = policies(
        '@id("models") forbid (principal, action, resource)\n'
        'when { context has model && !(context.model like "small-*") };\n'
        '@id("no-files-with-http") forbid (principal, action, resource)\n'
        'when { resource.grants.containsAll(["files", "http"]) };'
    )
    assert denied_by(ask(found, subject(models=["small-1", "large-1"]))) == [("models", "/grants/llm/1")]
    assert denied_by(ask(found, subject(grants=["files", "http", "kv"]))) == [("no-files-with-http", "")]
    assert ask(found, subject(grants=["files", "kv"], models=["small-1"])).is_permitted


def test_a_freeze_holds_from_its_first_moment_to_its_last_wherever_the_clock_stands() -> None:
    found = policies(
        '@id("freeze") forbid (principal, action == Action::"activate", resource)\n'
        'when { context.now >= datetime("2026-12-24T12:00:00Z") && context.now < datetime("2026-12-27T00:00:00Z") };'
    )
    start = datetime(2026, 12, 24, 12, tzinfo=UTC)
    for now, held in (
        (start - timedelta(milliseconds=1), False),
        (start, True),
        (start.astimezone(timezone(timedelta(hours=14))), True),
        (datetime(2026, 12, 26, 23, 59, 59, tzinfo=UTC), True),
        (datetime(2026, 12, 27, tzinfo=UTC), False),
    ):
        assert ask(found, subject(), action=Action.ACTIVATE, now=now).is_permitted is not held, now
    assert ask(found, subject(), action=Action.APPROVE, now=start).is_permitted


def test_days_and_hours_are_those_of_utc() -> None:
    found = policies(
        '@id("friday") forbid (principal, action, resource) when { context.weekday == 5 && context.hour >= 16 };'
    )
    friday = datetime(2026, 11, 27, 23, 30, tzinfo=timezone(timedelta(hours=8)))  # 15:30 in UTC
    assert ask(found, subject(), now=friday).is_permitted
    assert not ask(found, subject(), now=friday + timedelta(minutes=30)).is_permitted


def test_reviewers_of_a_domain_roles_and_approvers_can_be_demanded() -> None:
    found = policies(
        '@id("security-signs") forbid (principal, action == Action::"activate", resource)\n'
        'when { resource.widens } unless { context.approvers.contains(Person::"sam") };\n'
        '@id("own-domain") forbid (principal, action == Action::"approve", resource)\n'
        'unless { principal in Reviewers::"docs" && principal.roles.contains("reviewer") };\n'
        '@id("not-my-own") forbid (principal, action == Action::"approve", resource)\n'
        "when { principal == resource.author };"
    )
    wide = subject(widens=True)
    assert denied_by(ask(found, wide, action=Action.ACTIVATE)) == [("security-signs", "")]
    assert ask(found, wide, action=Action.ACTIVATE, approvers=frozenset({"bo", "sam"})).is_permitted
    outsider, reviewer = Principal.of("eve", ["ops"]), Principal.of("rita", ["docs"])
    assert denied_by(ask(found, wide, action=Action.APPROVE, principal=outsider)) == [("own-domain", "")]
    assert ask(found, wide, action=Action.APPROVE, principal=reviewer).is_permitted
    author = Principal.of("ana", ["docs"])
    assert denied_by(ask(found, wide, action=Action.APPROVE, principal=author)) == [("not-my-own", "")]


def test_domains_and_templates_are_above_their_versions() -> None:
    found = policies(
        '@id("docs-only") forbid (principal, action, resource) unless { resource in Domain::"docs" };\n'
        '@id("not-reader") forbid (principal, action, resource in Template::"docs/reader");'
    )
    assert denied_by(ask(found, subject())) == [("not-reader", "")]
    other = invented_subject(version_ref("ops/tool@2.0.0-rc.1"), author="ana", attributes={}, labels={})
    assert denied_by(ask(found, other)) == [("docs-only", "")]


def test_a_policy_that_cannot_be_evaluated_denies_though_cedar_itself_would_skip_it() -> None:
    found = policies(
        '@id("huge") forbid (principal, action, resource)\n'
        "when { resource.limits.fuel * 9223372036854775807 == 1 && resource.widens };"
    )
    verdict = ask(found, subject(limits={"fuel": 7}))
    (denial,) = verdict.denials
    assert (denial.name, denial.policy.place if denial.policy else None) == ("huge", "")
    assert "overflow" in denial.failure
    with pytest.raises(PolicyDeniedError) as caught:
        verdict.require("docs/reader@1.0.0")
    assert caught.value.reason is Reason.POLICY_FAILED


def test_a_question_that_does_not_fit_the_schema_is_denied() -> None:
    verdict = ask(policies(""), subject(surprise=["x"]))
    assert not verdict.is_permitted
    assert "surprise" in verdict.denials[0].failure


def test_what_no_policy_permits_is_denied() -> None:
    found = read_policies({"a.cedar": '@id("docs") permit (principal, action, resource in Domain::"ops");'})
    verdict = ask(found, subject())
    assert [str(each) for each in verdict.denials] == ["no policy permits it"]


def test_a_broken_glass_overrides_denials_and_failures_but_not_a_policy_that_never_yields() -> None:
    text = (
        '@id("freeze") forbid (principal, action, resource);\n'
        '@id("huge") forbid (principal, action, resource) when { resource.limits.fuel * 9223372036854775807 == 1 };\n'
    )
    verdict = ask(policies(text), subject(limits={"fuel": 7}), break_glass=True)
    assert verdict.is_permitted
    assert [each.name for each in verdict.overridden] == ["freeze", "huge"]
    never = '@id("never") @break_glass("never") forbid (principal, action, resource);'
    held = ask(policies(text + never), subject(limits={"fuel": 7}), break_glass=True)
    assert not held.is_permitted
    assert held.overridden == ()


def test_the_facts_are_what_was_derived() -> None:
    document = resolved(
        code=MODULE,
        labels={"team": "docs"},
        examples=[{"input": "a"}],
        callers=["documentation/*"],
        grants={
            "http": [
                {
                    "binding": "crossref",
                    "origin": "https://api.crossref.org:8443",
                    "methods": ["GET"],
                    "path_prefixes": ["/works"],
                    "inject": {"header": "Authorization", "secret": "crossref-token"},
                }
            ],
            "llm": [{"binding": "default", "models": ["small-1"], "tokens_max": 5}],
            "files": [
                {"mount": "/data", "export": "corpus", "mode": "ro"},
                {"mount": "/out", "export": "results", "mode": "rw"},
            ],
        },
    )
    capabilities = derive(document, report(imports=(host_interface("log"), host_interface("http"))))
    facts = subject_of(
        document,
        capabilities,
        differences=difference(None, capabilities),
        through=through_agents(document, None, [[]]),
        is_new=True,
        above_ceiling=False,
    )
    attributes = facts.attributes
    assert attributes["grants"] == ["files", "http", "llm"]
    assert (attributes["origins"], attributes["hosts"]) == (["https://api.crossref.org:8443"], ["api.crossref.org"])
    assert (attributes["secrets"], attributes["models"]) == (["crossref-token"], ["small-1"])
    assert (attributes["exports"], attributes["writable_exports"]) == (["corpus", "results"], ["results"])
    assert attributes["interfaces"] == [host_interface("http"), host_interface("log")]
    assert (attributes["callers"], attributes["examples"], attributes["code_bytes"]) == (["documentation/*"], 1, 3000)
    assert "/grants/http/crossref" in attributes["widened"]  # type: ignore[operator]
    assert [(item.place, *item.context) for item in facts.items] == [
        ("/grants/http/crossref", "origin"),
        ("/grants/llm/default", "model"),
    ]
    origin = facts.items[0].context["origin"]
    assert isinstance(origin, dict)
    assert (origin["host"], origin["port"], origin["secret"]) == ("api.crossref.org", 8443, "crossref-token")
    assert facts.labels == {"team": "docs"}
    verdict = ask(policies('@id("ss") forbid(principal, action, resource) when { resource.secrets.isEmpty() };'), facts)
    assert verdict.is_permitted, verdict.denials


def test_what_it_can_do_through_agents_can_be_forbidden() -> None:
    post = {"binding": "out", "origin": "https://out.test", "methods": ["POST"], "path_prefixes": ["/"]}
    callee = resolved(code=MODULE, name="sender", callers=["documentation/*"], grants={"http": [post]})
    caller = resolved(code=MODULE, grants={"agents": ["documentation/sender"]})
    capabilities = derive(caller, report())
    through = through_agents(caller, None, [[callee]])
    facts = subject_of(caller, capabilities, differences=(), through=through, is_new=False, above_ceiling=False)
    assert (facts.attributes["widens"], facts.attributes["origins"]) == (True, [])
    found = policies(
        '@id("out") forbid(principal, action, resource) when { resource.through.origins.contains("https://out.test") };'
    )
    assert denied_by(ask(found, facts)) == [("out", "")]
    alone = subject_of(caller, capabilities, differences=(), through=ThroughAgents(), is_new=False, above_ceiling=False)
    assert ask(found, alone).is_permitted


@pytest.mark.parametrize(
    ("attributes", "labels", "expected"),
    [
        ({"origins": ["https://a.test"]}, {}, []),
        ({"origins": ["http://a.test"]}, {}, [("no-plaintext-origins", "/grants/http/0")]),
        ({"callers": ["*/*"], "secrets": ["key"]}, {}, [("no-secrets-for-everyone", "/callers")]),
        ({"callers": ["*/*"]}, {}, []),
        ({"agents": ["*/*"]}, {}, [("no-agents-at-large", "/grants/agents")]),
        ({"agents": ["docs/*"]}, {}, []),
        ({"exports": ["corpus"], "origins": ["https://a.test"]}, {}, [("files-do-not-leave", "/grants")]),
        ({"exports": ["corpus"], "origins": ["https://a.test"]}, {"data-egress": "meant"}, []),
    ],
)
def test_the_built_in_defaults_in_production(
    attributes: dict[str, Any], labels: dict[str, str], expected: list[tuple[str, str]]
) -> None:
    assert denied_by(ask(default_policies(), subject(labels, **attributes))) == expected


def test_the_defaults_let_developers_use_plain_http_and_a_broken_glass_never_sends_secrets_in_the_clear() -> None:
    plain = subject(origins=["http://a.test"])
    assert ask(default_policies(), plain, mode="development").is_permitted
    assert ask(default_policies(), plain, break_glass=True).is_permitted
    origin = {**plain.items[0].context["origin"], "secret": "key"}  # type: ignore[dict-item]
    secret = Subject(
        ref=plain.ref,
        author="ana",
        attributes=plain.attributes,
        items=(type(plain.items[0])(place="/grants/http/x", context={"origin": origin}),),
    )
    names = [each.name for each in ask(default_policies(), secret, break_glass=True).denials]
    assert names == ["no-plaintext-origins", "no-secrets-in-plaintext"]


def test_a_set_travels_as_a_template_and_comes_back_the_same() -> None:
    found = policies('@id("xx") forbid (principal, action, resource) when { resource.widens };')
    document: dict[str, Any] = {**found.document("1.2.0")}
    carried = resolved(**document)
    assert policies_of(carried) == found
    assert str(carried.ref) == "policies/admission@1.2.0"
    for spoilt in ({"name": "other"}, {"code": None, "grants": {"kv": {"namespace": "n1", "bytes_max": 1}}}):
        members: dict[str, Any] = {**document, **spoilt}
        with pytest.raises(InvalidPolicyError):
            policies_of(resolved(**members))


FORBID = '@id("ff") forbid (principal, action, resource) when { resource.widens };'


@pytest.mark.parametrize(
    ("old", "new", "direction", "subject"),
    [
        ("", FORBID, Direction.NARROWED, "/policies/ff"),
        (FORBID, "", Direction.WIDENED, "/policies/ff"),
        (FORBID, FORBID.replace("widens", "is_new"), Direction.WIDENED, "/policies/ff"),
        (FORBID, "// why\n" + FORBID.replace("when", "\n  when"), Direction.SAME, "/policies/ff"),
        ("", FORBID.replace("forbid", "permit"), Direction.WIDENED, "/policies/ff"),
        (FORBID.replace("forbid", "permit"), "", Direction.NARROWED, "/policies/ff"),
        (FORBID, FORBID.replace("@id", '@break_glass("never") @id'), Direction.WIDENED, "/policies/ff"),
    ],
)
def test_policies_are_compared_by_name_and_only_what_surely_permits_no_more_is_not_widened(
    old: str, new: str, direction: Direction, subject: str
) -> None:
    found = {each.subject: each.direction for each in policy_entries(policies(old), policies(new))}
    assert found == {"/policies/admit": Direction.SAME, subject: direction}
