"""The client workflow: what a node does with an offered generation before it believes a byte of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from templates.acceptance import AcceptedTemplate
from templates.bundle import Bundle
from templates.charter import Charter, Mode
from templates.document import LeaseExpiry
from templates.names import TemplateName, TemplateRef
from templates.plan import Plan
from templates.reasons import Reason
from templates.revocations import Revocations


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What was decided when this node was installed; nothing that is signed can change it."""

    node_id: str
    environment: str
    production: bool
    clock_skew_s: int = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleMark:
    """The highest version believed of one role, and the keys it was signed under."""

    version: int
    keyids: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class HighWaterMark:
    """What must never go backwards. The node keeps it MACed and fsynced, apart from the bundle."""

    generation: int
    snapshot_sha256: str
    signed_at: datetime
    roles: Mapping[str, RoleMark]

    def to_bytes(self) -> bytes:
        raise NotImplementedError


def read_mark(data: bytes) -> HighWaterMark:
    """Read what `HighWaterMark.to_bytes` gave; raise `StateInvalidError`."""
    raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """What a node keeps besides the bundle: newest trusted root, high-water mark, union of revocations."""

    root: bytes
    mark: HighWaterMark | None
    revocations: Revocations


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    version: int
    signed_at: datetime
    expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """A template that the plan names and that may not run although nobody attacks: revoked, expired, below a floor."""

    template: TemplateRef
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A generation that passed every step. Persist the bundle, then ``belief``, then act on it."""

    generation: int
    node_id: str
    root_version: int
    environment: str
    mode: Mode
    charter: Charter
    plan: Plan
    lease: Lease
    templates: Mapping[TemplateName, AcceptedTemplate]
    """Active on this node, images that they need excluded (see ``AcceptedTemplate.image``)."""
    withdrawn: tuple[Withdrawn, ...]
    code: Mapping[str, int]
    """SHA-256 → length of every blob that this node's templates need."""
    belief: Belief


class Freshness(StrEnum):
    FRESH = "fresh"
    EXPIRED = "expired"  # the lease has run out: `on_lease_expiry` applies
    STALE = "stale"  # the charter's staleness cap is reached: nothing may run


def verify_roots(trusted: bytes, offered: Bundle) -> bytes:
    """Step R: walk from the trusted root to the newest one offered, each by its own and its predecessor's threshold.

    Persist the result at once, whatever becomes of the rest of the bundle.
    """
    raise NotImplementedError


def accept(
    offered: Bundle,
    *,
    belief: Belief,
    installation: Installation,
    now: datetime,
    previous: Accepted | None = None,
) -> Accepted:
    """Verify an offered generation whole. ``belief`` is left as it was; the new one is in the result.

    Args:
        offered: the bundle.
        belief: what this node keeps; its root may be older than those in the bundle.
        installation: of this node.
        now: aware, UTC.
        previous: the generation believed now: approvals that did not change need not be verified twice.

    Raises:
        AgentFactoryError: a subclass with its own reason per rule; see ADR 4.
    """
    raise NotImplementedError


def accept_from_disk(stored: Bundle, *, belief: Belief, installation: Installation, now: datetime) -> Accepted:
    """Verify the stored generation again at boot: like `accept`, but lease and snapshot may have expired (rule 6)."""
    raise NotImplementedError


def renew_lease(accepted: Accepted, timestamp: bytes, *, installation: Installation, now: datetime) -> Accepted:
    """Verify a newer ``timestamp.json`` for the generation that is believed already."""
    raise NotImplementedError


def freshness(accepted: Accepted, *, now: datetime) -> Freshness:
    """Say whether the lease still runs, and whether the charter still lets this node serve."""
    raise NotImplementedError


def in_force(on_lease_expiry: LeaseExpiry, current: Freshness) -> LeaseExpiry:
    """Return what a template must do now: ``continue`` while fresh, its own choice when expired, ``stop`` when stale."""
    raise NotImplementedError


def withdrawn_since(accepted: Accepted, *, now: datetime) -> tuple[Withdrawn, ...]:
    """Return the templates whose approvals have run out since the generation was accepted; ask from time to time."""
    raise NotImplementedError
