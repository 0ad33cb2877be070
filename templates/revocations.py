"""What must not be trusted any more, as a value that only grows."""

from dataclasses import dataclass
from typing import Self

from templates.canonical import JsonObject, JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocations:
    """Digests of resolved templates and of code (modules, images, sources), person ids, node ids."""

    templates: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset()
    reviewers: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()

    def union(self, other: "Revocations") -> "Revocations":
        raise NotImplementedError

    def without(self, lifted: "Revocations") -> "Revocations":
        raise NotImplementedError

    def to_json(self) -> JsonObject:
        raise NotImplementedError

    @classmethod
    def from_json(cls, value: JsonValue) -> Self:
        """Raise `ValueError` with the sentence that says what is wrong."""
        raise NotImplementedError


NO_REVOCATIONS = Revocations()
