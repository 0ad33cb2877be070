"""Inputs and outputs against a template's schemas: a refusal is a text, never an exception."""

from dataclasses import replace

from data_plane.agents.json_text import parse_json
from sandbox.outcome import Failure, FailureKind, Outcome
from templates.schemas import CompiledSchema


def misfit(schema: CompiledSchema, text: str, what: str) -> str:
    """Return why ``text`` does not fit, or ""."""
    try:
        violations = schema.violations(parse_json(text))
    except ValueError as error:
        return f"{what}: {error}"
    if not violations:
        return ""
    return f"expected {what} that fits its schema, got " + "; ".join(str(each) for each in violations[:5])


def checked_output(outcome: Outcome, schema: CompiledSchema | None) -> Outcome:
    if outcome.output is None:
        return outcome
    try:
        text = outcome.output.decode()
    except UnicodeDecodeError:
        problem = "expected output in UTF-8, got other bytes"
    else:
        problem = "" if schema is None else misfit(schema, text, "output")
    if not problem:
        return outcome
    return replace(outcome, output=None, failure=Failure(FailureKind.OUTPUT, problem))
