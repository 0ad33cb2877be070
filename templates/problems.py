"""What is wrong with a document, and where: the one shape in which every reader of this package reports it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from templates.reasons import AgentFactoryError, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A place in the text of a document: both numbers count from 1, the column in characters."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One refusal: a stable code, a sentence for the author, its place as JSON pointer (RFC 6901) and in the text."""

    code: Reason
    message: str
    pointer: str = ""
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        pointer = self.pointer if self.pointer.isprintable() else json.dumps(self.pointer)
        place = f" (at {pointer})" if pointer else ""
        return f"{self.line}:{self.column}: {self.code}: {self.message}{place}"


def join(pointer: str, key: str) -> str:
    """Append one member name to a JSON pointer, escaped as RFC 6901 section 3 says."""
    return f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"


def located(problem: Problem, positions: Mapping[str, Position]) -> Problem:
    """Give a problem the place in the text of its pointer, or of the nearest enclosing value that is in the text."""
    pointer = problem.pointer
    while pointer and pointer not in positions:
        pointer = pointer.rpartition("/")[0]
    place = positions.get(pointer, Position(line=1, column=1))
    return replace(problem, line=place.line, column=place.column)


class InvalidDocumentError(AgentFactoryError):
    """A document was refused; ``problems`` holds every reason found, in the order of the text, never none."""

    reason = Reason.INVALID_DOCUMENT

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda each: (each.line, each.column, each.code)))
        first = self.problems[0]
        others = len(self.problems) - 1
        suffix = f", and {others} more problem{'s' if others > 1 else ''}" if others else ""
        super().__init__(
            f"{first}{suffix}",
            metadata={
                "code": str(first.code),
                "pointer": first.pointer,
                "line": str(first.line),
                "column": str(first.column),
                "problems": str(len(self.problems)),
            },
        )


class InvalidTemplateError(InvalidDocumentError):
    """A template document, or what it becomes together with its parents, was refused."""

    reason = Reason.INVALID_TEMPLATE
