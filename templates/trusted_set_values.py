"""The values of the workflow: what a node was told at installation, what it must never forget, and what it accepted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from templates.acceptance import AcceptedTemplate
from templates.canonical import JsonObject, canonical_bytes
from templates.charter import Charter, Mode
from templates.names import TemplateName, TemplateRef
from templates.plan import Plan
from templates.reasons import Reason
from templates.revocations import NO_REVOCATIONS, Revocations
from templates.signed_document import SignedDocument, read_time, time_text
from templates.trusted_set_errors import StateInvalidError

BELIEF_BYTES_MAX = 16_777_216


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What was decided when this node was installed; nothing that is signed can change it.

    A node in production mode refuses whatever calls itself development. ``clock_skew_s`` is how far this machine's
    clock may be behind the signers'.
    """

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
    """What must never go backwards: the version of every role, the snapshot itself, the last signed time."""

    snapshot_sha256: str
    signed_at: datetime
    roles: Mapping[str, RoleMark]

    @property
    def generation(self) -> int:
        return self.roles["snapshot"].version


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """What a node keeps besides the bundle: newest trusted root, high-water mark, every revocation ever seen.

    The node keeps `to_bytes` under a MAC and fsynced, apart from the bundle. ``mark`` is None before the first
    generation. An installation begins with ``Belief(root=pinned)``.
    """

    root: bytes
    mark: HighWaterMark | None = None
    revocations: Revocations = NO_REVOCATIONS

    def to_bytes(self) -> bytes:
        mark: JsonObject | None = None
        if self.mark is not None:
            mark = {
                "snapshot_sha256": self.mark.snapshot_sha256,
                "signed_at": time_text(self.mark.signed_at),
                "roles": {
                    name: {"version": role.version, "keyids": [*sorted(role.keyids)]}
                    for name, role in self.mark.roles.items()
                },
            }
        return canonical_bytes(
            {
                "schema": 1,
                "root": self.root.decode("utf-8"),
                "mark": mark,
                "revocations": self.revocations.to_json(),
            }
        )


_BELIEF = SignedDocument("belief", bytes_max=BELIEF_BYTES_MAX, error=StateInvalidError)


def read_belief(data: bytes) -> Belief:
    """Read what `Belief.to_bytes` gave (after its MAC was checked); raise `StateInvalidError`."""
    value: dict[str, Any] = _BELIEF.read(data)
    mark = value["mark"]
    try:
        return Belief(
            root=value["root"].encode("utf-8"),
            mark=None
            if mark is None
            else HighWaterMark(
                snapshot_sha256=mark["snapshot_sha256"],
                signed_at=read_time(mark["signed_at"]),
                roles={
                    name: RoleMark(version=role["version"], keyids=frozenset(role["keyids"]))
                    for name, role in mark["roles"].items()
                },
            ),
            revocations=Revocations.from_json(value["revocations"]),
        )
    except ValueError as error:
        raise StateInvalidError(f"expected a stored belief, got: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The timestamp role: this generation was the newest at ``signed_at``."""

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
    """A generation that passed every step. Persist the bundle, then ``belief``, then act on it.

    ``templates`` holds what agents can be made of on this node; images stand in ``AcceptedTemplate.image``. ``code`` is
    SHA-256 → length of every blob that these templates need. ``expires`` is per role, for people to be warned.
    ``withdrawn`` and ``verified`` are of the whole plan, this node's part of it or not; ``verified`` is for the next
    update, which need not do the same work again.
    """

    generation: int
    node_id: str
    root_version: int
    environment: str
    mode: Mode
    charter: Charter
    plan: Plan
    lease: Lease
    expires: Mapping[str, datetime]
    templates: Mapping[TemplateName, AcceptedTemplate]
    withdrawn: tuple[Withdrawn, ...]
    verified: Mapping[TemplateRef, AcceptedTemplate] = field(repr=False)
    code: Mapping[str, int]
    belief: Belief


class Freshness(StrEnum):
    FRESH = "fresh"
    EXPIRED = "expired"  # the lease, or a role above it, has run out: `on_lease_expiry` applies
    STALE = "stale"  # the charter's staleness cap is reached: nothing may run
