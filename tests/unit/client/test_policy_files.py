"""Policies and cases as files, through agentctl as its user types it: places, exit statuses, JSON."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from client.agentctl.main import cli
from client.policy_files import read_cases
from templates.policies.policy_set import InvalidPolicyError

ADMIT = '@id("admit") permit (principal, action, resource);\n'
OURS = (
    '@id("ours") forbid (principal, action, resource)\n'
    'when { context has origin && context.origin.host != "a.test" };\n'
)

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run() -> Run:
    def call(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli, arguments)
        return done.exit_code, done.stdout

    return call


def case(**members: Any) -> dict[str, Any]:
    return {"name": "one", "action": "submit", "template": "docs/reader", "expect": "allow", **members}


def written(folder: Path, cedar: str, *cases: dict[str, Any]) -> str:
    (folder / "admission.cedar").write_text(cedar)
    if cases:
        (folder / "some.cases.json").write_text(json.dumps({"cases": cases}))
    return str(folder)


def test_check_prints_each_problem_with_file_line_column_and_code(run: Run, tmp_path: Path) -> None:
    folder = written(tmp_path, ADMIT)
    assert run("policy", "check", folder) == (0, "")
    (tmp_path / "more.cedar").write_text("\n" + OURS.replace("context.origin.host", "context.origin.hst"))
    status, printed = run("policy", "check", folder)
    assert (status, printed.split(" ")[0]) == (3, f"{tmp_path / 'more.cedar'}:3:45:")
    assert "POLICY_TYPE" in printed
    status, printed = run("-o", "json", "policy", "check", folder)
    (problem,) = json.loads(printed)
    assert (status, problem["line"], problem["column"], problem["code"]) == (3, 3, 45, "POLICY_TYPE")


def test_what_is_not_utf_8_or_not_there_is_said_so(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.cedar").write_bytes(b"\xff\xfe")
    assert "INVALID_ENCODING" in run("policy", "check", str(tmp_path / "bad.cedar"))[1]
    empty = tmp_path / "empty"
    empty.mkdir()
    done = CliRunner().invoke(cli, ["policy", "check", str(empty)])
    assert "expected files *.cedar" in str(done.exception)


def test_cases_hold_or_fail_with_the_policy_that_was_expected(run: Run, tmp_path: Path) -> None:
    strange = {"origins": ["https://b.test"]}
    good = [case(), case(name="two", version=strange, expect="deny", policies=["ours"])]
    folder = written(tmp_path, ADMIT + OURS, *good)
    status, printed = run("policy", "test", folder)
    assert (status, printed) == (0, "ok     one\nok     two\n")
    wrong = [
        case(name="allowed after all", expect="deny"),
        case(name="denied after all", version=strange),
        case(name="denied by another", version=strange, expect="deny", policies=["theirs"]),
        case(name="denied by more", version=strange, expect="deny", policies=[]),
    ]
    folder = written(tmp_path, ADMIT + OURS, *wrong)
    status, printed = run("policy", "test", folder)
    assert (status, printed.count("FAILED")) == (1, 4)
    status, printed = run("-o", "json", "policy", "test", folder)
    assert [each["held"] for each in json.loads(printed)] == [False] * 4


def test_cases_can_be_asked_of_the_defaults(run: Run, tmp_path: Path) -> None:
    denied = case(version={"origins": ["http://a.test"]}, expect="deny", policies=["no-plaintext-origins"])
    written(tmp_path, ADMIT, denied)
    assert run("policy", "test", "--defaults", str(tmp_path / "some.cases.json"))[0] == 0
    assert run("policy", "test", str(tmp_path))[0] == 1


def test_the_circumstances_are_those_of_the_case(run: Run, tmp_path: Path) -> None:
    freeze = (
        '@id("freeze") forbid (principal, action == Action::"activate", resource)\n'
        'when { context.now >= datetime("2026-12-24") } unless { context.break_glass };'
    )
    within = {"now": "2026-12-24T00:00:00+00:00"}
    before = {"now": "2026-12-24T00:00:00+02:00"}
    cases = [
        case(name="within", action="activate", context=within, expect="deny", policies=["freeze"]),
        case(name="before", action="activate", context=before),
        case(name="no moment", action="activate"),
        case(name="glass", action="activate", context={**within, "break_glass": True}),
    ]
    assert run("policy", "test", written(tmp_path, ADMIT + freeze, *cases))[0] == 0


@pytest.mark.parametrize(
    ("members", "code", "pointer"),
    [
        ({"expct": "deny"}, "UNKNOWN_FIELD", "/cases/0/expct"),
        ({"action": "revoke"}, "INVALID_VALUE", "/cases/0/action"),
        ({"template": "docs"}, "INVALID_VALUE", "/cases/0/template"),
        ({"template": "docs/reader@one.two"}, "INVALID_VALUE", "/cases/0/template"),
        ({"version": {"orgins": []}}, "UNKNOWN_FIELD", "/cases/0/version/orgins"),
        ({"version": {"limits": {"fule": 1}}}, "INVALID_VALUE", "/cases/0/version/limits/fule"),
        ({"context": {"now": "2026-13-24T00:00:00Z"}}, "INVALID_VALUE", "/cases/0/context/now"),
        ({"context": {"now": "tomorrow"}}, "INVALID_VALUE", "/cases/0/context/now"),
    ],
)
def test_a_case_that_says_nothing_clear_is_refused_at_its_place(
    members: dict[str, Any], code: str, pointer: str
) -> None:
    with pytest.raises(InvalidPolicyError) as caught:
        read_cases("a.cases.json", json.dumps({"cases": [case(**members)]}).encode())
    found = [(str(each.problem.code), each.problem.pointer) for each in caught.value.found]
    assert found == [(code, pointer)]


def test_cases_of_one_name_and_keys_given_twice_are_refused() -> None:
    with pytest.raises(InvalidPolicyError, match="each name once"):
        read_cases("a.cases.json", json.dumps({"cases": [case(), case()]}).encode())
    with pytest.raises(InvalidPolicyError) as caught:
        read_cases("a.cases.json", b'{"cases": [], "cases": []}')
    assert "DUPLICATE_KEY" in {str(each.problem.code) for each in caught.value.found}


def test_the_schema_and_the_defaults_can_be_printed(run: Run, tmp_path: Path) -> None:
    assert "entity Version in [Template]" in run("policy", "show", "--schema")[1]
    status, printed = run("policy", "show", "--defaults")
    assert (status, run("policy", "check", written(tmp_path, printed))) == (0, (0, ""))


def test_the_examples_of_the_documentation_are_right(run: Run, tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "policy.md").read_text()
    cedar, cases = (re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) for language in ("cedar", "json"))
    assert (len(cedar), len(cases)) == (1, 1)
    (tmp_path / "admission.cedar").write_text(cedar[0])
    (tmp_path / "admission.cases.json").write_text(cases[0])
    assert run("policy", "check", str(tmp_path))[0] == 0
    status, printed = run("policy", "test", str(tmp_path))
    assert (status, printed.count("ok ")) == (0, 2), printed
