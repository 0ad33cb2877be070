"""JSON Schema (2020-12) for configuration, input and output: no reference leaves the document, no pattern runs away."""

from dataclasses import dataclass

from templates.canonical import JsonObject, JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One way in which a value does not fit: ``pointer`` into the value."""

    pointer: str
    message: str


class CompiledSchema:
    """A schema that was checked once; safe to share between threads."""

    def violations(self, value: JsonValue, *, count_max: int = 50) -> tuple[Violation, ...]:
        """Return why ``value`` does not fit, in the order of the schema; empty when it does."""
        raise NotImplementedError

    def require(self, value: JsonValue) -> None:
        """Raise `SchemaViolationError` unless ``value`` fits."""
        raise NotImplementedError


def compile_schema(schema: JsonObject) -> CompiledSchema:
    """Check and compile a schema.

    Raises:
        InvalidSchemaError: too large, too deep, not JSON Schema, a reference outside the document, a pattern that
            linear-time matching cannot carry out, or evaluation that multiplies with the depth of its input.
    """
    raise NotImplementedError
