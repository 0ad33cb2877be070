"""A set of admission policies: files of Cedar that were checked against the schema, each policy with a name of its own.

Rules beyond those of the language (ADR 21):

P1  at most `FILES_MAX` files, `BYTES_MAX` bytes and `POLICIES_MAX` policies, UTF-8 that reads as it runs
P2  every policy is named by ``@id``, and no two have one name; of annotations only those of `ANNOTATIONS` are known
P3  every policy is one that the schema's types allow; templates of policies (``?principal``) are not used
P4  at least one policy permits something: Cedar denies what no policy permits
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import resources
from typing import Any, Final

import cedarpy

from templates.canonical import JsonObject
from templates.names import TemplateName
from templates.policies.cedar_text import Statement, parse_error, quoted_position, statements_of, syntax_position
from templates.problems import InvalidDocumentError, Position, Problem
from templates.reasons import Reason
from templates.resolved import ResolvedTemplate

FILES_MAX: Final = 32
BYTES_MAX: Final = 131_072
POLICIES_MAX: Final = 500
POLICIES_DOMAIN: Final = "policies"
POLICY_NAME: Final = TemplateName(POLICIES_DOMAIN, "admission")
"""Whose newest approved version is in force; its text lies in ``default_config.cedar``, by file."""
MEMBER: Final = "cedar"
DEFAULTS_FILE: Final = "defaults.cedar"
ANNOTATIONS: Final = frozenset({"id", "message", "place", "break_glass"})
_ID: Final = re.compile(r"[a-z][a-z0-9-]{1,62}")
_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.cedar")
_PLACE: Final = re.compile(r"(?:/[^\x00-\x1f]{1,100}){1,8}")
_MESSAGE_CHARACTERS_MAX: Final = 300
_DECEPTIVE: Final = frozenset(
    "\u061c\u200b\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
_NOISE: Final = re.compile(r'^for policy `policy[0-9]+`, |(?: in context)? for Action::"[a-z]+"')


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyProblem:
    """One problem and the file that it is in."""

    file: str
    problem: Problem

    def __str__(self) -> str:
        return f"{self.file}:{self.problem}"


class InvalidPolicyError(InvalidDocumentError):
    """Policies are refused; ``found`` holds every problem with its file, never none."""

    reason = Reason.POLICY_INVALID

    def __init__(self, found: "list[PolicyProblem]") -> None:
        self.found = tuple(sorted(found, key=lambda each: (each.file, each.problem.line, each.problem.column)))
        super().__init__(replace(each.problem, pointer=each.file) for each in self.found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One policy as messages name it. ``yields`` says whether a broken glass overrides it when it forbids.

    ``text`` is its tokens, without comments, one space between them.
    """

    name: str
    effect: str  # "permit" | "forbid"
    file: str
    position: Position
    text: str
    message: str = ""
    place: str = ""
    yields: bool = True

    def to_json(self) -> JsonObject:
        return {
            "policy": self.name,
            "effect": self.effect,
            "file": self.file,
            "line": self.position.line,
            "column": self.position.column,
            "message": self.message,
            "yields_to_break_glass": self.yields,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySet:
    """Checked policies. ``policies`` are in the engine's order: its ``policy3`` is the one with index 3."""

    files: Mapping[str, str]
    policies: tuple[Policy, ...]
    engine: cedarpy.PolicySet = field(repr=False, compare=False)

    def document(self, version: str, *, description: str = "") -> JsonObject:
        """Return the template document that carries this set through review."""
        return {
            "schema": 1,
            "domain": POLICY_NAME.domain,
            "name": POLICY_NAME.name,
            "version": version,
            "role": "admission policies",
            "description": description or "Which versions may be submitted, approved and made active here.",
            "default_config": {MEMBER: dict(sorted(self.files.items()))},
        }


@lru_cache(maxsize=1)
def schema_text() -> str:
    return resources.files("templates.policies").joinpath("admission.cedarschema").read_text("utf-8")


@lru_cache(maxsize=1)
def schema() -> cedarpy.Schema:
    return cedarpy.Schema.from_str(schema_text())


@lru_cache(maxsize=1)
def default_policies() -> PolicySet:
    """Return what holds where nothing was approved."""
    text = resources.files("templates.policies").joinpath(DEFAULTS_FILE).read_text("utf-8")
    return read_policies({DEFAULTS_FILE: text})


def read_policies(files: Mapping[str, str]) -> PolicySet:
    """Check Cedar text, by file name.

    Raises:
        InvalidPolicyError: every problem of rules P1 to P4.
    """
    problems = list(_size_problems(files))
    if problems:
        raise InvalidPolicyError(problems)
    statements = [each for file, source in sorted(files.items()) for each in statements_of(file, source)]
    problems = [problem for each in statements for problem in _syntax_problems(each)]
    if problems:
        raise InvalidPolicyError(problems)
    if not 0 < len(statements) <= POLICIES_MAX:
        raise InvalidPolicyError([_at_top(files, f"expected 1 to {POLICIES_MAX} policies, got {len(statements)}")])
    text = "\n".join(each.text for each in statements)
    static = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
    parsed: list[dict[str, Any]] = [static[f"policy{index}"] for index in range(len(statements))]
    problems = [*_name_problems(statements, parsed), *_type_problems(statements, text)]
    if not problems and all(each["effect"] != "permit" for each in parsed):
        problems.append(_at_top(files, "expected a policy that permits something: what none permits is denied"))
    if problems:
        raise InvalidPolicyError(problems)
    return PolicySet(
        files=dict(files),
        policies=tuple(_policy(statement, each) for statement, each in zip(statements, parsed, strict=True)),
        engine=cedarpy.PolicySet.from_str(text),
    )


def policies_of(template: ResolvedTemplate) -> PolicySet:
    """Return the policies that a template of `POLICY_NAME` carries.

    Raises:
        InvalidPolicyError: it carries something else, or more than policies.
    """
    files = template.default_config.get(MEMBER)
    is_plain = template.is_abstract and template.parent is None and not template.grants.interfaces()
    if (
        template.ref.template_name != POLICY_NAME
        or not is_plain
        or set(template.default_config) != {MEMBER}
        or not isinstance(files, dict)
        or not all(isinstance(text, str) for text in files.values())
    ):
        raise InvalidPolicyError(
            [_problem(Reason.INVALID_VALUE, "", Position(line=1, column=1), _EXPECTED.format(template.ref))]
        )
    return read_policies({file: str(text) for file, text in files.items()})


_EXPECTED: Final = (
    f"expected {POLICY_NAME} without code, grants or parent, and in default_config nothing but {MEMBER}: file → text, "
    "got {}; make it with agentctl policy submit"
)


def _size_problems(files: Mapping[str, str]) -> Iterator[PolicyProblem]:
    if not 0 < len(files) <= FILES_MAX:
        yield _at_top(files, f"expected 1 to {FILES_MAX} files, got {len(files)}")
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in files.values())
    if size > BYTES_MAX:
        yield _at_top(files, f"expected at most {BYTES_MAX} bytes of policies, got {size}")
    for file, text in sorted(files.items()):
        if not _FILE.fullmatch(file):
            yield _problem(
                Reason.INVALID_NAME, file[:100], Position(line=1, column=1), "expected a name like NAME.cedar"
            )
        yield from _character_problems(file, text)


def _character_problems(file: str, text: str) -> Iterator[PolicyProblem]:
    """CVE-2021-42574: reviewers see another policy than the engine reads."""
    for number, line in enumerate(text.split("\n"), start=1):
        for column, character in enumerate(line, start=1):
            hidden = character in _DECEPTIVE or unicodedata.category(character) in {"Cc", "Cs"}
            if hidden and character not in "\t\r":
                message = f"expected text that reads as it runs, got U+{ord(character):04X}"
                yield _problem(Reason.INVALID_VALUE, file, Position(line=number, column=column), message)


def _syntax_problems(statement: Statement) -> Iterator[PolicyProblem]:
    error = parse_error(statement.text)
    if error:
        place = syntax_position(statement, error)
        yield _problem(Reason.POLICY_SYNTAX, statement.file, place, f"expected a Cedar policy, got: {error}")
    elif json.loads(cedarpy.policies_to_json_str(statement.text))["templates"]:
        message = "expected a policy, got a template of one (?principal, ?resource)"
        yield _problem(Reason.POLICY_SYNTAX, statement.file, statement.position, message)


def _name_problems(statements: list[Statement], parsed: list[dict[str, Any]]) -> Iterator[PolicyProblem]:
    names = Counter(each.get("annotations", {}).get("id") for each in parsed)
    for statement, policy in zip(statements, parsed, strict=True):
        annotations: dict[str, Any] = policy.get("annotations", {})
        for message, annotation in _annotation_messages(annotations, names):
            texts = [token.text for token in statement.tokens]
            index = texts.index(annotation) if annotation in texts else 0
            yield _problem(Reason.POLICY_NAME, statement.file, statement.position_of(index), message)


def _annotation_messages(annotations: Mapping[str, Any], names: Mapping[Any, int]) -> Iterator[tuple[str, str]]:
    name = annotations.get("id")
    if not isinstance(name, str) or not _ID.fullmatch(name):
        yield '@id: expected a name of 2 to 63 of a-z 0-9 - that begins with a letter, as in @id("no-http")', "id"
    elif names[name] > 1:
        yield f"@id: expected every name once, got {name} {names[name]} times", "id"
    for unknown in sorted(annotations.keys() - ANNOTATIONS):
        yield f"@{unknown}: expected one of @{', @'.join(sorted(ANNOTATIONS))}", unknown
    message = annotations.get("message", "-")
    if not isinstance(message, str) or not 0 < len(message) <= _MESSAGE_CHARACTERS_MAX or not message.isprintable():
        yield f"@message: expected one line of at most {_MESSAGE_CHARACTERS_MAX} characters", "message"
    place = annotations.get("place", "/-")
    if not isinstance(place, str) or not _PLACE.fullmatch(place):
        yield '@place: expected a JSON pointer into the template, as in @place("/labels/team")', "place"
    if annotations.get("break_glass", "never") != "never":
        yield '@break_glass: expected "never"', "break_glass"


def _type_problems(statements: list[Statement], text: str) -> Iterator[PolicyProblem]:
    errors = cedarpy.validate_policies(text, schema()).errors
    for policy, message in dict.fromkeys((each.policy_id, _NOISE.sub("", each.error)) for each in errors):
        number = policy.removeprefix("policy")
        if number.isdigit() and int(number) < len(statements):
            statement = statements[int(number)]
            place = quoted_position(statement, message)
            yield _problem(Reason.POLICY_TYPE, statement.file, place, message)
        else:
            yield _problem(Reason.POLICY_TYPE, statements[0].file, Position(line=1, column=1), message)


def _policy(statement: Statement, parsed: Mapping[str, Any]) -> Policy:
    annotations = parsed["annotations"]
    return Policy(
        name=annotations["id"],
        effect=parsed["effect"],
        file=statement.file,
        position=statement.position,
        text=" ".join(token.text for token in statement.tokens),
        message=annotations.get("message", ""),
        place=annotations.get("place", ""),
        yields="break_glass" not in annotations,
    )


def _at_top(files: Mapping[str, str], message: str) -> PolicyProblem:
    return _problem(Reason.INVALID_VALUE, min(files, default=""), Position(line=1, column=1), message)


def _problem(code: Reason, file: str, place: Position, message: str) -> PolicyProblem:
    return PolicyProblem(file=file, problem=Problem(code=code, message=message, line=place.line, column=place.column))
