"""A template's own examples, run in the sandbox: what was expected, what came, and where they part."""

import difflib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client.authoring.recorded_answers import (
    AnswersHost,
    Recorded,
    Recorder,
    read_answers,
    write_answers,
)
from client.documents import read_file
from client.local_run import LocalRun, run_template
from templates.canonical import JsonValue
from templates.document import Example

if TYPE_CHECKING:
    from client.local_http import Outside
    from client.local_llm import Models
    from sandbox.request import HostCalls


class Network(StrEnum):
    """Where the outside's answers come from: by default from ``answers.json`` where that is, else from outside."""

    RECORDED = "recorded"
    RECORD = "record"
    LIVE = "live"


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
    document: Path,
    *,
    parents: Sequence[Path],
    image: Path | None,
    tell: Callable[[str], None],
    network: Network = Network.RECORDED,
    outside: "Outside | None" = None,
    models: "Models | None" = None,
) -> list[ExampleResult]:
    """Run every example of the template with all that it asks for and a local run can carry out.

    Raises:
        AnswersInvalidError: ``answers.json`` is none.
        AgentFactoryError: as `run_template`, for what is wrong with the template and not with an answer.
    """
    template = read_file(document)
    known = read_answers(document.parent) if network is Network.RECORDED else None
    found, answers = [], {}
    for number, example in enumerate(template.examples or (), start=1):
        hosts: list[AnswersHost] = []

        def around(inner: "HostCalls", number: int = number, hosts: list[AnswersHost] = hosts) -> AnswersHost:
            host = Recorder(inner) if known is None else Recorded(inner, known.get(number, ()))
            hosts.append(host)
            return host

        local = run_template(
            document,
            text=as_text(example.input),
            config={},
            granted=template.grants.interfaces(),
            parents=parents,
            image=image,
            tell=tell,
            outside=outside,
            models=models,
            around=around,
        )
        (host,) = hosts
        found.append(_result(number, example, local, host.problem))
        answers[number] = host.calls if isinstance(host, Recorder) else []
    if network is Network.RECORD:
        write_answers(document.parent, answers)
    return found


def _result(number: int, example: Example, found: LocalRun, problem: str) -> ExampleResult:
    failure = problem or found.failure
    difference = ""
    if not failure and found.output is not None and example.has_output:
        difference = difference_of(example.output, found.output)
    return ExampleResult(
        number=number,
        holds=failure is None and not difference,
        failure=failure,
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
