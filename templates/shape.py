"""The published schemas, and what their refusals are called here: one code and one sentence for each kind of error."""

import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

import jsonschema_rs
from jsonschema_rs import ValidationErrorKind as Kind

from templates.canonical import JsonObject, JsonValue
from templates.names import nearest
from templates.problems import InvalidDocumentError, Problem, join
from templates.reasons import Reason
from templates.schemas import CompiledSchema, cut, pointer_of, subschemas
from templates.strict_json import shown

_SUGGESTIONS_MAX = 20  # for one object; each takes a comparison with every known field
_JSON_TYPES: dict[type, str] = {
    dict: "object",
    list: "array",
    str: "string",
    bool: "boolean",
    int: "number",
    float: "number",
    type(None): "null",
}


def _load(file: str) -> JsonObject:
    loaded: JsonObject = json.loads(resources.files("templates").joinpath(file).read_text("utf-8"))
    return loaded


class Shape:
    """One published schema, compiled once, that reports in this package's words."""

    def __init__(self, file: str, *others: str) -> None:
        """Compile ``file``, which may refer to ``others`` by their ``$id``; nothing else can be reached."""
        schema, known = _load(file), [_load(other) for other in others]
        registry = jsonschema_rs.Registry([(str(each["$id"]), each) for each in known])
        self._schema = CompiledSchema(schema, registry=registry)
        nodes = [node for each in (schema, *known) for _, node in subschemas(each)]
        self._titles: dict[str, str] = {node["pattern"]: node["title"] for node in nodes if "pattern" in node}
        self._fields: set[str] = {field for node in nodes for field in node.get("properties", {})}

    def problems(self, value: JsonValue) -> tuple[Problem, ...]:
        """Return every way in which ``value`` has another shape; the places in the text are still unknown."""
        found = dict.fromkeys(problem for error in self._schema.errors(value) for problem in self._problems(error))
        mistyped = {each.pointer for each in found if each.code is Reason.WRONG_TYPE}
        return tuple(each for each in found if each.code is Reason.WRONG_TYPE or each.pointer not in mistyped)

    def require(self, value: JsonValue, error: type[InvalidDocumentError]) -> None:
        """Raise ``error`` with the first problem: for documents that travelled, which nobody is about to correct."""
        if (first := self._schema.first_error(value)) is not None:
            raise error(self._problems(first))

    def _problems(self, error: jsonschema_rs.ValidationError) -> Iterator[Problem]:
        pointer = pointer_of(error.instance_path)
        match error.kind:
            case Kind.AdditionalProperties(unexpected):
                for index, name in enumerate(unexpected):
                    near = nearest(name, self._fields, count=1) if index < _SUGGESTIONS_MAX else ()
                    hint = f"; did you mean {shown(near[0])}?" if near else ""
                    message = f"expected a known field, got {shown(name)}{hint}"
                    yield Problem(code=Reason.UNKNOWN_FIELD, message=message, pointer=join(pointer, name))
            case Kind.Required(name):
                message = f"expected the field {shown(name)}, got none"
                yield Problem(code=Reason.MISSING_FIELD, message=message, pointer=pointer)
            case Kind.Type(types):
                message = f"expected {' or '.join(types)}, got {_kind_of(error.instance)}"
                yield Problem(code=Reason.WRONG_TYPE, message=message, pointer=pointer)
            case _:
                yield Problem(code=Reason.INVALID_VALUE, message=self._sentence(error), pointer=pointer)

    def _sentence(self, error: jsonschema_rs.ValidationError) -> str:
        value: Any = error.instance
        match error.kind:
            case Kind.PropertyNames(inner):
                return self._sentence(inner)
            case Kind.Pattern(pattern):
                expected, got = self._titles[pattern], _brief(value)
            case Kind.Enum(options):
                expected, got = " or ".join(str(each) for each in options), _brief(value)
            case Kind.Constant(constant):
                expected, got = str(constant), _brief(value)
            case Kind.Minimum(limit):
                expected, got = f"at least {limit}", _brief(value)
            case Kind.Maximum(limit):
                expected, got = f"at most {limit}", _brief(value)
            case Kind.MinLength(limit) | Kind.MinItems(limit):
                expected, got = f"a length of at least {limit}", str(len(value))
            case Kind.MaxLength(limit) | Kind.MaxItems(limit) | Kind.MaxProperties(limit):
                expected, got = f"a length of at most {limit}", str(len(value))
            case Kind.UniqueItems():
                expected, got = "each member once", "one again"
            case _:
                return cut(error.message)
        return f"expected {expected}, got {got}"


def _kind_of(value: Any) -> str:
    return _JSON_TYPES.get(type(value), "something else")


def _brief(value: Any) -> str:
    return shown(value) if isinstance(value, str) else cut(json.dumps(value))


TEMPLATE_SHAPE = Shape("template.schema.json")
RESOLVED_SHAPE = Shape("resolved.schema.json", "template.schema.json")
CAPABILITIES_SHAPE = Shape("capabilities.schema.json", "template.schema.json", "resolved.schema.json")
