"""The plan: which approved version is active for which nodes, and what is revoked; signed online (director)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from templates.canonical import JsonObject, canonical_bytes
from templates.names import InvalidNameError, TemplateName, TemplateRef
from templates.reasons import AgentFactoryError, Reason
from templates.revocations import NO_REVOCATIONS, Revocations
from templates.signed_document import SignedDocument

PLAN_BYTES_MAX = 4_194_304


class PlanInvalidError(AgentFactoryError):
    """Bytes are not a plan, or one that names two versions of a template for one node."""

    reason = Reason.PLAN_INVALID


_DOCUMENT = SignedDocument("plan", bytes_max=PLAN_BYTES_MAX, error=PlanInvalidError)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanEntry:
    """One active version. ``nodes`` None stands for every node that no other entry of the same template names by id."""

    template: TemplateRef
    sha256: str
    nodes: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    environment: str
    entries: tuple[PlanEntry, ...]
    revocations: Revocations = NO_REVOCATIONS

    def for_node(self, node_id: str) -> tuple[PlanEntry, ...]:
        """Return what is active on one node, ordered by name; an entry that names the node wins over one for all."""
        chosen: dict[TemplateName, PlanEntry] = {}
        for entry in self.entries:
            name = entry.template.template_name
            if entry.nodes is None:
                chosen.setdefault(name, entry)
            elif node_id in entry.nodes:
                chosen[name] = entry
        return tuple(chosen[name] for name in sorted(chosen))

    def to_json(self) -> JsonObject:
        return {
            "schema": 1,
            "environment": self.environment,
            "entries": [
                {
                    "template": str(entry.template),
                    "sha256": entry.sha256,
                    "nodes": "*" if entry.nodes is None else [*sorted(entry.nodes)],
                }
                for entry in self.entries
            ],
            "revocations": self.revocations.to_json(),
        }

    def to_bytes(self) -> bytes:
        """Return the RFC 8785 bytes; raise `PlanInvalidError` if this plan contradicts itself."""
        value = _DOCUMENT.check(self.to_json())
        _DOCUMENT.refuse_if(list(self._contradictions()))
        return canonical_bytes(value)

    def _contradictions(self) -> Iterator[str]:
        everywhere: set[TemplateName] = set()
        somewhere: set[tuple[TemplateName, str]] = set()
        digests: dict[TemplateRef, str] = {}
        for entry in self.entries:
            name = entry.template.template_name
            if digests.setdefault(entry.template, entry.sha256) != entry.sha256:
                yield f"expected one digest of {entry.template}, got two"
            if entry.nodes is None:
                if name in everywhere:
                    yield f"expected one version of {name} for all nodes, got two"
                everywhere.add(name)
                continue
            for node in sorted(entry.nodes):
                if (name, node) in somewhere:
                    yield f"expected one version of {name} for node {node}, got two"
                somewhere.add((name, node))


def read_plan(data: bytes) -> Plan:
    """Read plan.json: strict, canonical, unambiguous; raise `PlanInvalidError`."""
    value: dict[str, Any] = _DOCUMENT.read(data)
    try:
        plan = Plan(
            environment=value["environment"],
            entries=tuple(
                PlanEntry(
                    template=TemplateRef.parse(entry["template"]),
                    sha256=entry["sha256"],
                    nodes=None if entry["nodes"] == "*" else frozenset(entry["nodes"]),
                )
                for entry in value["entries"]
            ),
            revocations=Revocations.from_json(value["revocations"]),
        )
    except InvalidNameError as error:
        raise PlanInvalidError(error.message) from None
    _DOCUMENT.refuse_if(list(plan._contradictions()))  # noqa: SLF001  (the reader belongs to the class)
    return plan
