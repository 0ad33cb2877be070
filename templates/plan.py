"""The plan: which approved version is active for which nodes, and what is revoked; signed online by the director's key."""

from dataclasses import dataclass

from templates.canonical import JsonObject
from templates.names import TemplateRef
from templates.reasons import AgentFactoryError, Reason
from templates.revocations import NO_REVOCATIONS, Revocations

PLAN_BYTES_MAX = 4_194_304


class PlanInvalidError(AgentFactoryError):
    """Bytes are not a plan, or one that names two versions of a template for one node."""

    reason = Reason.PLAN_INVALID


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
        raise NotImplementedError

    def to_json(self) -> JsonObject:
        raise NotImplementedError

    def to_bytes(self) -> bytes:
        """Return the RFC 8785 bytes; raise `PlanInvalidError` if this plan contradicts itself."""
        raise NotImplementedError


def read_plan(data: bytes) -> Plan:
    """Read plan.json: strict, canonical, unambiguous; raise `PlanInvalidError`."""
    raise NotImplementedError
