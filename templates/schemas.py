"""JSON Schema (2020-12) for configuration, input and output: no reference leaves the document, no pattern runs away.

The schema comes from an author and the value from a caller, so both are hostile. What is bounded, and by what:

===================  ==================================================================================================
size and depth       `SCHEMA_BYTES_MAX`, `SCHEMA_DEPTH_MAX`, `SCHEMA_VALUES_MAX`; the value's by whoever parsed it
references           only ``#`` and ``#/…`` inside the schema; the validator is built offline besides
patterns             the linear-time engine (no look-around, no back-references), with a cap on its compiled size
evaluations          `_Effort`: at most `EFFORT_MAX` checks for each place of a value, references followed
reports              `EXPLANATION_MAX`: the library builds every error, with a copy of the value, before it returns one
===================  ==================================================================================================
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from typing import Any

import jsonschema_rs

from templates.canonical import JsonObject, JsonValue, canonical_bytes
from templates.problems import join
from templates.reasons import AgentFactoryError, Reason

SCHEMA_BYTES_MAX = 65_536
SCHEMA_DEPTH_MAX = 24
SCHEMA_VALUES_MAX = 4_000
EFFORT_MAX = 1_000
EXPLANATION_MAX = 1_000_000  # size of a value times errors for each of its places: 0.2 s and some tens of megabytes
VALUE_DEPTH_MAX = 64  # deeper values are refused by `strict_json` before they come here
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PLACE_SIZE = 64
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
_BRANCHES = frozenset({"anyOf", "oneOf"})
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

    def __init__(
        self,
        schema: JsonObject,
        *,
        registry: jsonschema_rs.Registry | None = None,
        errors_per_place: int = 1,
        has_branches: bool = False,
    ) -> None:
        """Compile a schema that `compile_schema` has checked, or one of ours.

        Args:
            schema: the schema.
            registry: further schemas that it may refer to.
            errors_per_place: how many errors one place of a value can have at most.
            has_branches: whether one error can hold others (``anyOf``, ``oneOf``), as many as there are places.
        """
        self._errors_per_place, self._has_branches = errors_per_place, has_branches
        self._validator = jsonschema_rs.Draft202012Validator(
            schema,
            offline=True,
            registry=registry,
            validate_formats=False,  # annotations by default in 2020-12, and costs that nobody has bounded
            pattern_options=jsonschema_rs.RegexOptions(
                size_limit=_PATTERN_BYTES_MAX, dfa_size_limit=_PATTERN_BYTES_MAX
            ),
        )

    def errors(self, value: JsonValue) -> Sequence[jsonschema_rs.ValidationError]:
        """Return the validator's own errors: all of them, unless that could cost too much.

        Of a large value the first error alone is returned; where even that could hold too many, none is, so this
        sequence says why a value does not fit, never whether it does.
        """
        if _size(value, stop_at=EXPLANATION_MAX) * self._errors_per_place <= EXPLANATION_MAX:
            return list(self._validator.iter_errors(value))
        return [] if self._has_branches or (first := self.first_error(value)) is None else [first]

    def first_error(self, value: JsonValue) -> jsonschema_rs.ValidationError | None:
        """Return the first error: bounded for schemas without branches, which hold no errors in errors."""
        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            return error
        return None

    def violations(self, value: JsonValue, *, count_max: int = 50) -> tuple[Violation, ...]:
        """Return why ``value`` does not fit, in the order of the schema; empty when it does."""
        if self._validator.is_valid(value):
            return ()
        errors = self.errors(value)
        found = (Violation(pointer=pointer_of(each.instance_path), message=cut(each.message)) for each in errors)
        return tuple(islice(dict.fromkeys(found), count_max)) or (_TOO_LARGE_TO_EXPLAIN,)

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
    errors_per_place = _Effort(nodes).require()
    has_branches = any(node.keys() & _BRANCHES for node in nodes.values())
    try:
        return CompiledSchema(schema, errors_per_place=errors_per_place, has_branches=has_branches)
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


def _size(value: JsonValue, *, stop_at: int) -> int:
    """Estimate what a copy of ``value`` takes; beyond ``stop_at`` the answer is only that it is beyond."""
    total, waiting = 0, [value]
    while waiting and total <= stop_at:
        each = waiting.pop()
        total += _PLACE_SIZE
        if isinstance(each, str):
            total += len(each)
        elif isinstance(each, dict):
            total += sum(map(len, each))
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
    return total


_META = CompiledSchema({"$ref": DIALECT}, errors_per_place=8)  # each of its vocabularies reports for itself
_TOO_LARGE_TO_EXPLAIN = Violation(pointer="", message="expected a value that fits, got one too large to say where not")


def _require_size(schema: JsonObject) -> None:
    level: list[JsonValue] = [schema]
    values = 0
    for _ in range(SCHEMA_DEPTH_MAX + 1):
        values += len(level)
        if values > SCHEMA_VALUES_MAX:
            raise _refusal(f"expected a schema of at most {SCHEMA_VALUES_MAX} values, got more")
        level = [
            member
            for each in level
            if isinstance(each, (dict, list))
            for member in (each.values() if isinstance(each, dict) else each)
        ]
    if level:
        raise _refusal(f"expected a schema of at most {SCHEMA_DEPTH_MAX} levels, got more")
    if (length := len(canonical_bytes(schema))) > SCHEMA_BYTES_MAX:
        raise _refusal(f"expected a schema of at most {SCHEMA_BYTES_MAX} bytes, got {length}")


def _refusal(message: str, pointer: str = "") -> InvalidSchemaError:
    return InvalidSchemaError((Violation(pointer=pointer, message=message),))


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
        self._nodes = nodes
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

    def require(self) -> int:
        """Return how many errors one place can have.

        Raises:
            InvalidSchemaError: a schema that applies itself in place, or makes more than `EFFORT_MAX` checks.
        """
        try:
            order = list(TopologicalSorter(self._in_place).static_order())  # innermost first
        except CycleError as error:
            circle: list[str] = error.args[1]
            raise _refusal("expected a schema that ends, got one that applies itself in place", circle[0]) from error
        for pointer, checks in self._per_place(order, {each: _checks(node) for each, node in self._nodes.items()}):
            if checks > EFFORT_MAX:
                raise _refusal(f"expected at most {EFFORT_MAX} checks for each place of a value, got more", pointer)
        return max(
            count for _, count in self._per_place(order, {each: _errors(node) for each, node in self._nodes.items()})
        )

    def _per_place(self, order: Sequence[str], weights: Mapping[str, int]) -> Iterator[tuple[str, int]]:
        """Yield, for each schema and each depth below it, the weight of all that is evaluated at one place there."""
        above: dict[str, int] = {}
        for depth in range(VALUE_DEPTH_MAX + 1):
            here: dict[str, int] = {}
            for pointer in order:
                total = sum(here[each] for each in self._in_place[pointer])
                if depth:
                    total += sum(above[each] for each in self._each[pointer])
                    total += max((above[each] for each in self._one[pointer]), default=0)
                else:
                    total += weights[pointer]
                yield pointer, total
                here[pointer] = total
            if here == above:
                return  # and so on at every further depth
            above = here


def _checks(node: Mapping[str, Any]) -> int:
    """Weigh one schema without its subschemas; the unit is about ten nanoseconds."""
    lists = [node.get("enum", ()), node.get("required", ()), *node.get("dependentRequired", {}).values()]
    return 1 + sum(len(each) for each in lists) + (_MULTIPLE_OF_CHECKS if "multipleOf" in node else 0)


def _errors(node: Mapping[str, Any]) -> int:
    """Count the errors that one schema can report about one place: one for each keyword and each required member."""
    return len(node) + sum(
        len(each) for each in (node.get("required", ()), *node.get("dependentRequired", {}).values())
    )
