"""A template's own examples, run in the sandbox: what was expected, what came, and where they part."""

import difflib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.documents import read_file
from client.local_run import run_template
from templates.canonical import JsonValue
from templates.document import Example, Template


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleResult:
    """One example's end. ``difference`` is empty when it holds; ``failure`` is the sandbox's, if it ended in one."""

    number: int
    holds: bool
    failure: str | None
    difference: str
    logs: Sequence[str]
    fuel: int
    wall_ms: float

    def to_json(self) -> dict[str, Any]:
        return {
            "example": self.number,
            "holds": self.holds,
            "failure": self.failure,
            "difference": self.difference,
            "logs": list(self.logs),
            "fuel": self.fuel,
            "wall_ms": self.wall_ms,
        }


def run_examples(
    document: Path, *, parents: Sequence[Path], image: Path | None, tell: Callable[[str], None]
) -> list[ExampleResult]:
    """Run every example of the template with all that it asks for and a local run can carry out.

    Raises:
        AgentFactoryError: as `run_template`, for what is wrong with the template and not with an answer.
    """
    template = read_file(document)
    return [
        _run(number, example, document, template, parents, image, tell)
        for number, example in enumerate(template.examples or (), start=1)
    ]


def _run(
    number: int,
    example: Example,
    document: Path,
    template: Template,
    parents: Sequence[Path],
    image: Path | None,
    tell: Callable[[str], None],
) -> ExampleResult:
    found = run_template(
        document,
        text=as_text(example.input),
        config={},
        granted=template.grants.interfaces(),
        parents=parents,
        image=image,
        tell=tell,
    )
    difference = ""
    if found.output is not None and example.has_output:
        difference = difference_of(example.output, found.output)
    return ExampleResult(
        number=number,
        holds=found.failure is None and not difference,
        failure=found.failure,
        difference=difference,
        logs=[f"{line['level']}: {line['message']}" for line in found.logs],
        fuel=int(found.usage["fuel"]),
        wall_ms=float(found.usage["wall_ms"]),
    )


def as_text(value: JsonValue) -> str:
    """An example's value as it travels: text as it is, anything else as its JSON text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def difference_of(expected: JsonValue, output: str) -> str:
    """Return a unified diff of what was expected and what came; empty when they are the same.

    Text is compared as text, anything else as JSON: then the order of members and white space do not matter.
    """
    if isinstance(expected, str):
        wanted, came = expected, output
    else:
        try:
            came = _pretty(json.loads(output))
        except ValueError:
            came = output
        wanted = _pretty(expected)
    if wanted == came:
        return ""
    lines = difflib.unified_diff(wanted.splitlines(), came.splitlines(), "expected", "got", lineterm="")
    return "\n".join(lines) or "they differ in the end of a line only"


def _pretty(value: JsonValue) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True)
