"""JSON Schema (2020-12) for configuration, input and output: no reference leaves the document, no pattern runs away.

The schema comes from an author and the value from a caller, so both are hostile. What is bounded, and by what:

===================  ==================================================================================================
size and depth       `SCHEMA_BYTES_MAX`, `SCHEMA_DEPTH_MAX`; the value's by whoever parsed it
references           only ``#`` and ``#/…`` inside the schema; the validator is built offline besides
patterns             the linear-time engine (no look-around, no back-references), with a cap on its compiled size
evaluations          `_Effort`: at most `EFFORT_MAX` checks for each place of a value, references followed
===================  ==================================================================================================
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from typing import Any, NoReturn

import jsonschema_rs

from templates.canonical import JsonObject, JsonValue, canonical_bytes
from templates.problems import join
from templates.reasons import AgentFactoryError, Reason

SCHEMA_BYTES_MAX = 65_536
SCHEMA_DEPTH_MAX = 24
EFFORT_MAX = 1_000
VALUE_DEPTH_MAX = 64  # deeper values are refused by `strict_json` before they come here
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_MULTIPLE_OF_CHECKS = 50  # decimal arithmetic
_PATTERN_BYTES_MAX = 1_048_576
_MESSAGE_LENGTH_MAX = 300
_LOCAL_REFERENCE = re.compile(r"#(?:/.*)?", re.DOTALL)
_REFUSED_KEYWORDS = frozenset({
    "$id", "$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef", "$recursiveAnchor", "$vocabulary",
    "dependencies",  # of older drafts, yet still evaluated
})  # fmt: skip

# Where JSON Schema 2020-12 keeps subschemas, by what they apply to: the same place of the value, or a member of it.
_IN_PLACE = frozenset({"not", "if", "then", "else", "allOf", "anyOf", "oneOf", "dependentSchemas"})
_EACH_MEMBER = frozenset({
    "items", "additionalProperties", "unevaluatedItems", "unevaluatedProperties", "contains", "propertyNames",
    "patternProperties",
})  # fmt: skip
_ONE_MEMBER = frozenset({"properties", "prefixItems"})
_NAMED = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})
_SUBSCHEMAS = _IN_PLACE | _EACH_MEMBER | _ONE_MEMBER | {"$defs", "definitions", "contentSchema"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One way in which a value does not fit: ``pointer`` into the value."""

    pointer: str
    message: str

    def __str__(self) -> str:
        return f"{self.message} (at {self.pointer or 'the top'})"


class SchemaViolationError(AgentFactoryError):
    """A configuration, an input or an output does not fit its schema; ``violations`` says where, never empty."""

    reason = Reason.SCHEMA_VIOLATION

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        self.violations = violations
        super().__init__(
            "expected a value that fits its schema, got " + "; ".join(str(each) for each in violations[:5]),
            metadata={"pointer": violations[0].pointer, "violations": str(len(violations))},
        )


class InvalidSchemaError(AgentFactoryError):
    """A schema is refused; ``violations`` point into the schema, never empty."""

    reason = Reason.INVALID_SCHEMA

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        self.violations = violations
        super().__init__("expected a usable JSON Schema, got " + "; ".join(str(each) for each in violations[:5]))


class CompiledSchema:
    """A schema that was checked once; safe to share between threads."""

    def __init__(self, schema: JsonObject, *, registry: jsonschema_rs.Registry | None = None) -> None:
        """Compile a schema that `compile_schema` has checked, or one of ours."""
        self._validator = jsonschema_rs.Draft202012Validator(
            schema,
            offline=True,
            registry=registry,
            validate_formats=False,  # annotations by default in 2020-12, and costs that nobody has bounded
            pattern_options=jsonschema_rs.RegexOptions(
                size_limit=_PATTERN_BYTES_MAX, dfa_size_limit=_PATTERN_BYTES_MAX
            ),
        )

    def errors(self, value: JsonValue) -> Iterator[jsonschema_rs.ValidationError]:
        """Yield the validator's own errors, for readers that map each kind to a code."""
        return self._validator.iter_errors(value)

    def violations(self, value: JsonValue, *, count_max: int = 50) -> tuple[Violation, ...]:
        """Return why ``value`` does not fit, in the order of the schema; empty when it does."""
        if self._validator.is_valid(value):
            return ()
        errors = islice(self.errors(value), count_max)
        found = (Violation(pointer=pointer_of(each.instance_path), message=cut(each.message)) for each in errors)
        return tuple(dict.fromkeys(found))

    def require(self, value: JsonValue) -> None:
        """Raise `SchemaViolationError` unless ``value`` fits."""
        if violations := self.violations(value):
            raise SchemaViolationError(violations)


def compile_schema(schema: JsonObject) -> CompiledSchema:
    """Check and compile a schema.

    Raises:
        InvalidSchemaError: too large, too deep, not JSON Schema, a reference outside the document, a pattern that
            linear-time matching cannot carry out, or evaluation that multiplies with the depth of its input.
    """
    _require_size(schema)
    nodes = dict(subschemas(schema))
    problems = list(_META.violations(schema))
    for pointer, node in nodes.items():
        problems += _refusals(pointer, node, nodes)
    if problems:
        raise InvalidSchemaError(tuple(problems))
    _Effort(nodes).require()
    try:
        return CompiledSchema(schema)
    except jsonschema_rs.ValidationError as error:
        violation = Violation(pointer=pointer_of(error.instance_path), message=cut(error.message))
        raise InvalidSchemaError((violation,)) from error


def check(schema: JsonObject, value: JsonValue) -> None:
    """Compile ``schema`` and raise `SchemaViolationError` unless ``value`` fits it."""
    compile_schema(schema).require(value)


def pointer_of(path: list[str | int]) -> str:
    """Return the JSON pointer of a path of keys and indices."""
    pointer = ""
    for step in path:
        pointer = join(pointer, str(step))
    return pointer


def cut(message: str) -> str:
    """Bound a message that may quote a value of any size."""
    return message if len(message) <= _MESSAGE_LENGTH_MAX else f"{message[: _MESSAGE_LENGTH_MAX - 1]}…"


_META = CompiledSchema({"$ref": DIALECT})


def _require_size(schema: JsonObject) -> None:
    level: list[Any] = [schema]
    for _ in range(SCHEMA_DEPTH_MAX):
        level = [
            member
            for each in level
            if isinstance(each, (dict, list))
            for member in (each.values() if isinstance(each, dict) else each)
        ]
    if any(isinstance(each, (dict, list)) for each in level):
        message = f"expected a schema of at most {SCHEMA_DEPTH_MAX} levels, got more"
        raise InvalidSchemaError((Violation(pointer="", message=message),))
    if (length := len(canonical_bytes(schema))) > SCHEMA_BYTES_MAX:
        message = f"expected a schema of at most {SCHEMA_BYTES_MAX} bytes, got {length}"
        raise InvalidSchemaError((Violation(pointer="", message=message),))


def subschemas(schema: JsonValue, pointer: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every object that stands where 2020-12 expects a schema, with its JSON pointer, outermost first."""
    if not isinstance(schema, dict):
        return
    yield pointer, schema
    for keyword in schema.keys() & _SUBSCHEMAS:
        for place, child in _children(keyword, schema[keyword], join(pointer, keyword)):
            yield from subschemas(child, place)


def _children(keyword: str, value: JsonValue, pointer: str) -> Iterator[tuple[str, JsonValue]]:
    if keyword in _NAMED:
        if isinstance(value, dict):
            yield from ((join(pointer, name), child) for name, child in value.items())
    elif isinstance(value, list):
        yield from ((f"{pointer}/{index}", child) for index, child in enumerate(value))
    else:
        yield pointer, value


def _refusals(pointer: str, node: Mapping[str, Any], nodes: Mapping[str, Any]) -> Iterator[Violation]:
    for keyword in sorted(node.keys() & _REFUSED_KEYWORDS):
        yield Violation(pointer=join(pointer, keyword), message=f"expected a self-contained schema, got {keyword}")
    if (dialect := node.get("$schema", DIALECT)) != DIALECT:
        yield Violation(pointer=f"{pointer}/$schema", message=cut(f"expected {DIALECT}, got {dialect}"))
    if "$ref" in node and (not isinstance(node["$ref"], str) or _target(node["$ref"]) not in nodes):
        message = f"expected a reference to a schema in this document (#/…), got {node['$ref']}"
        yield Violation(pointer=f"{pointer}/$ref", message=cut(message))
    patterns = node.get("patternProperties")
    for place, pattern in [
        (f"{pointer}/pattern", node.get("pattern")),
        *(
            (join(f"{pointer}/patternProperties", each), each)
            for each in (patterns if isinstance(patterns, dict) else ())
        ),
    ]:
        if isinstance(pattern, str) and (reason := _pattern_refusal(pattern)):
            yield Violation(pointer=place, message=reason)


def _pattern_refusal(pattern: str) -> str:
    try:
        CompiledSchema({"pattern": pattern})
    except jsonschema_rs.ValidationError:
        return cut(f"expected a pattern for linear-time matching (no look-around, no back-reference), got {pattern}")
    return ""


def _target(reference: str) -> str | None:
    """Return the pointer of a local reference, None for one that leaves the document or needs percent-decoding."""
    return reference[1:] if _LOCAL_REFERENCE.fullmatch(reference) and "%" not in reference else None


class _Effort:
    """Bounds the checks that one place of a value can cost, whatever the value is.

    Schemas that apply in place add up; so do those that apply to each member; of those for one named member only the
    costliest counts. References are followed: a definition that refers to itself once costs the same at every depth
    of the value, one that does so twice costs double with each level, and is refused.
    """

    def __init__(self, nodes: Mapping[str, Mapping[str, Any]]) -> None:
        self._checks = {pointer: _checks(node) for pointer, node in nodes.items()}
        self._in_place: dict[str, list[str]] = {}
        self._each: dict[str, list[str]] = {}
        self._one: dict[str, list[str]] = {}
        for pointer, node in nodes.items():
            self._in_place[pointer] = [node["$ref"][1:]] if "$ref" in node else []
            self._each[pointer], self._one[pointer] = [], []
            for keyword in node.keys() & (_IN_PLACE | _EACH_MEMBER | _ONE_MEMBER):
                edges = self._in_place if keyword in _IN_PLACE else self._each if keyword in _EACH_MEMBER else self._one
                found = (place for place, _ in _children(keyword, node[keyword], join(pointer, keyword)))
                edges[pointer] += [place for place in found if place in nodes]

    def require(self) -> None:
        """Raise `InvalidSchemaError` for a schema that applies itself in place, or costs more than `EFFORT_MAX`."""
        order = self._innermost_first()
        above: dict[str, int] = {}
        for depth in range(VALUE_DEPTH_MAX + 1):
            here: dict[str, int] = {}
            for pointer in order:
                effort = sum(here[each] for each in self._in_place[pointer])
                if depth:
                    effort += sum(above[each] for each in self._each[pointer])
                    effort += max((above[each] for each in self._one[pointer]), default=0)
                else:
                    effort += self._checks[pointer]
                if effort > EFFORT_MAX:
                    self._refuse(pointer, f"expected at most {EFFORT_MAX} checks for each place of a value, got more")
                here[pointer] = effort
            above = here

    def _innermost_first(self) -> list[str]:
        """Order the schemas so that each comes after those that apply in its place."""
        sorter = TopologicalSorter(self._in_place)
        try:
            return list(sorter.static_order())
        except CycleError as error:
            self._refuse(error.args[1][0], "expected a schema that ends, got one that applies itself in place")

    @staticmethod
    def _refuse(pointer: str, message: str) -> NoReturn:
        raise InvalidSchemaError((Violation(pointer=pointer, message=message),))


def _checks(node: Mapping[str, Any]) -> int:
    """Weigh one schema without its subschemas; the unit is about ten nanoseconds."""
    lists = [node.get("enum", ()), node.get("required", ()), *node.get("dependentRequired", {}).values()]
    return 1 + sum(len(each) for each in lists) + (_MULTIPLE_OF_CHECKS if "multipleOf" in node else 0)
