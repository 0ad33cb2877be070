"""Policies and their cases as files: read strictly, with the place of every problem, and run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from templates.canonical import JsonObject
from templates.limits import LIMIT_NAMES
from templates.names import InvalidNameError, nearest
from templates.policies.decision import Verdict, decide
from templates.policies.facts import Action, Circumstances, Item, Principal, Question, invented_subject, version_ref
from templates.policies.policy_set import BYTES_MAX, InvalidPolicyError, PolicyProblem, PolicySet, read_policies
from templates.problems import Problem, join, located
from templates.reasons import AgentFactoryError, Reason
from templates.shape import Shape
from templates.strict_json import scan

CASES_SUFFIX: Final = ".cases.json"
_SUFFIX: Final = ".cedar"
_CASES_SHAPE: Final = Shape("policies/cases.schema.json")
_CASES_BYTES_MAX: Final = 1 << 20
_AUTHOR: Final = "author"
_NOON: Final = "2026-01-05T12:00:00Z"
"""Of a Monday: what a case is asked at that names no time, so that it says the same every day."""


class PolicyFilesError(AgentFactoryError):
    """There are no such files, or two of one name."""

    reason = Reason.POLICY_INVALID


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One expectation; ``policies`` None: whichever deny."""

    name: str
    question: Question
    is_permitted: bool
    policies: frozenset[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    case: Case
    verdict: Verdict

    @property
    def held(self) -> bool:
        denied_by = {each.name for each in self.verdict.denials}
        return self.verdict.is_permitted is self.case.is_permitted and self.case.policies in {
            None,
            frozenset(denied_by),
        }

    def to_json(self) -> JsonObject:
        expected = sorted(self.case.policies) if self.case.policies is not None else None
        return {
            "case": self.case.name,
            "held": self.held,
            "expected": "allow" if self.case.is_permitted else "deny",
            "expected_policies": [*expected] if expected is not None else None,
            **self.verdict.to_json(),
        }


def policy_paths(paths: Sequence[Path]) -> dict[str, Path]:
    """Return the files of policies that ``paths`` (files, or folders of ``*.cedar``) name, by the name in the set.

    Raises:
        PolicyFilesError: none, or two of one name.
    """
    found: dict[str, Path] = {}
    for path in paths:
        for each in sorted(path.glob(f"*{_SUFFIX}")) if path.is_dir() else [path]:
            if found.setdefault(each.name, each) != each:
                raise PolicyFilesError(f"expected each file name once, got {found[each.name]} and {each}")
    if not found:
        raise PolicyFilesError(f"expected files *{_SUFFIX}, got none in {', '.join(map(str, paths))}")
    return found


def read_policy_files(paths: Mapping[str, Path]) -> PolicySet:
    """Read and check them as one set.

    Raises:
        InvalidPolicyError: every problem, with the path of its file.
        OSError: a file cannot be read.
    """
    texts: dict[str, str] = {}
    problems: list[PolicyProblem] = []
    for name, path in paths.items():
        data = path.read_bytes()
        try:
            texts[name] = data[: BYTES_MAX + 1].decode()
        except UnicodeDecodeError as error:
            message = f"expected UTF-8, got the byte 0x{data[error.start]:02x} at {error.start}"
            problem = Problem(code=Reason.INVALID_ENCODING, message=message)
            problems.append(PolicyProblem(file=str(path), problem=problem))
    if problems:
        raise InvalidPolicyError(problems)
    try:
        return read_policies(texts)
    except InvalidPolicyError as error:
        shown = [PolicyProblem(file=str(paths.get(each.file, each.file)), problem=each.problem) for each in error.found]
        raise InvalidPolicyError(shown) from error


def read_cases(file: str, data: bytes) -> tuple[Case, ...]:
    """Read a file of cases.

    Raises:
        InvalidPolicyError: every problem, with its place.
    """
    read, problems = scan(data, bytes_max=_CASES_BYTES_MAX)
    found = list(problems)
    if read is not None:
        found += [located(each, read.positions) for each in _CASES_SHAPE.problems(read.value)]
        if not found:
            found += [located(each, read.positions) for each in _meaning_problems(read.value)]
    if read is None or found:
        raise InvalidPolicyError([PolicyProblem(file=file, problem=each) for each in found])
    cases: Any = read.value
    return tuple(_case(each) for each in cases["cases"])


def run(policies: PolicySet, cases: Sequence[Case], *, named: str) -> tuple[Outcome, ...]:
    """Ask every question."""
    return tuple(Outcome(case=case, verdict=decide(policies, case.question, named=named)) for case in cases)


def _meaning_problems(value: Any) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, case in enumerate(value["cases"]):
        pointer = f"/cases/{index}"
        if case["name"] in seen:
            yield _problem(f"expected each name once, got {case['name']} again", f"{pointer}/name")
        seen.add(case["name"])
        try:
            version_ref(case["template"])
        except InvalidNameError as error:
            yield _problem(error.message, f"{pointer}/template")
        try:
            _moment(case.get("context", {}).get("now", _NOON))
        except ValueError as error:
            yield _problem(f"expected a moment, got one that does not exist: {error}", f"{pointer}/context/now")
        for name in case.get("version", {}).get("limits", {}):
            if name not in LIMIT_NAMES:
                near = nearest(name, LIMIT_NAMES, count=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                yield _problem(f"expected a limit, got {name}{hint}", join(f"{pointer}/version/limits", name))


def _problem(message: str, pointer: str) -> Problem:
    return Problem(code=Reason.INVALID_VALUE, message=message, pointer=pointer)


def _case(value: Mapping[str, Any]) -> Case:
    author = value.get("author", _AUTHOR)
    principal = value.get("principal", {"name": author})
    context = value.get("context", {})
    subject = invented_subject(
        version_ref(value["template"]),
        author=author,
        attributes=value.get("version", {}),
        labels=value.get("labels", {}),
        items=None if "items" not in value else [_item(each) for each in value["items"]],
    )
    policies = value.get("policies")
    return Case(
        name=value["name"],
        question=Question(
            action=Action(value["action"]),
            principal=Principal(
                name=principal["name"],
                reviews=frozenset(principal.get("reviews", ())),
                roles=frozenset(principal.get("roles", ("author",))),
            ),
            subject=subject,
            circumstances=Circumstances(
                now=_moment(context.get("now", _NOON)),
                environment=context.get("environment", "test"),
                mode=context.get("mode", "production"),
                approvers=frozenset(context.get("approvers", ())),
                threshold=context.get("threshold", 1),
                break_glass=context.get("break_glass", False),
            ),
        ),
        is_permitted=value["expect"] == "allow",
        policies=None if policies is None else frozenset(policies),
    )


def _item(value: Mapping[str, Any]) -> Item:
    return Item(place=value["place"], context={name: each for name, each in value.items() if name != "place"})


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
