"""What must not be trusted any more, as a value that only grows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

from templates.canonical import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocations:
    """Digests of resolved templates and of code (modules, images, sources), person ids, node ids, identities.

    ``identities`` are URIs of identities and ``serial:<hexadecimal digits>`` of single certificates: what servers
    refuse at the door (ADR 20).
    """

    templates: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset()
    reviewers: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()
    identities: frozenset[str] = frozenset()

    def union(self, other: "Revocations") -> "Revocations":
        return Revocations(**{kind: getattr(self, kind) | getattr(other, kind) for kind in KINDS})

    def without(self, lifted: "Revocations") -> "Revocations":
        return Revocations(**{kind: getattr(self, kind) - getattr(lifted, kind) for kind in KINDS})

    def both(self, other: "Revocations") -> "Revocations":
        """Return what is in both."""
        return Revocations(**{kind: getattr(self, kind) & getattr(other, kind) for kind in KINDS})

    def to_json(self) -> JsonObject:
        # The last kind came later: left out while empty, so that documents without it stay the bytes that were signed.
        return {kind: sorted(getattr(self, kind)) for kind in KINDS if kind != "identities" or getattr(self, kind)}

    @classmethod
    def from_json(cls, value: Mapping[str, Sequence[str]]) -> Self:
        """Build the value from the ``revocations`` object of a document that has passed its schema."""
        return cls(**{kind: frozenset(members) for kind, members in value.items()})


KINDS: tuple[str, ...] = tuple(field.name for field in fields(Revocations))
NO_REVOCATIONS = Revocations()
