"""Whether a template agrees with itself: its schemas are usable, its configuration and examples fit them."""

from collections.abc import Iterator, Mapping

from templates.canonical import JsonObject, JsonValue
from templates.problems import Problem
from templates.reasons import Reason
from templates.schemas import CompiledSchema, InvalidSchemaError, compile_schema

SCHEMA_FIELDS = ("config_schema", "input_schema", "output_schema")


def fit_problems(members: Mapping[str, JsonValue], *, complete: bool) -> Iterator[Problem]:
    """Yield every disagreement; pointers are those of the document.

    Args:
        members: the members of a template document whose shape is right; those of another shape are left out.
        complete: whether nothing is inherited any more. Otherwise an absent schema may be the parent's and an
            incomplete configuration may be completed by it, so both are left to the resolved template.
    """
    schemas: dict[str, CompiledSchema] = {}
    for name in SCHEMA_FIELDS:
        schema = members.get(name)
        if isinstance(schema, dict):
            try:
                schemas[name] = compile_schema(schema)
            except InvalidSchemaError as error:
                yield from (
                    Problem(code=Reason.INVALID_SCHEMA, message=each.message, pointer=f"/{name}{each.pointer}")
                    for each in error.violations
                )
    if complete and "config_schema" in schemas:
        for each in schemas["config_schema"].violations(members.get("default_config", {})):
            yield Problem(code=Reason.CONFIG_MISMATCH, message=each.message, pointer=f"/default_config{each.pointer}")
    examples = members.get("examples")
    for index, example in enumerate(examples if isinstance(examples, list) else ()):
        if isinstance(example, dict):
            for side in ("input", "output"):
                absent = complete and f"{side}_schema" not in members
                yield from _example_problems(example, side, schemas, f"/examples/{index}/{side}", text=absent)


def _example_problems(
    example: JsonObject, side: str, schemas: Mapping[str, CompiledSchema], pointer: str, *, text: bool
) -> Iterator[Problem]:
    if side not in example:
        return
    if (schema := schemas.get(f"{side}_schema")) is not None:
        for each in schema.violations(example[side]):
            yield Problem(code=Reason.EXAMPLE_MISMATCH, message=each.message, pointer=f"{pointer}{each.pointer}")
    elif text and not isinstance(example[side], str):
        message = f"expected text, because there is no {side}_schema, got other JSON"
        yield Problem(code=Reason.EXAMPLE_MISMATCH, message=message, pointer=pointer)
