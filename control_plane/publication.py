"""The next signed generation: built with the online keys, then verified exactly as a node will verify it.

Pure: signing and verifying are computations, and ``now`` is an argument. The result is stored and pushed, or forgotten.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from control_plane.library import Library
from control_plane.plan import Rules
from templates import trusted_set
from templates.acceptance import accept_template, effective_revocations
from templates.bundle import Bundle, compress, decompress, read_bundle
from templates.charter import Charter
from templates.names import TemplateRef
from templates.plan import Plan
from templates.repository import OfflineTrust, OnlineSigners, Validity, publish, renew_lease
from templates.revocations import Revocations
from templates.trusted_set import Accepted, Belief, Installation

OWN_NODE_ID = "control-plane"
"""Stands for a node without entries of its own when the control plane verifies what it is about to push."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What this installation signs with and verifies as. ``lease_s`` None takes what the charter allows at most."""

    signers: OnlineSigners
    installation: Installation
    lease_s: int | None = None

    def validity(self, charter: Charter) -> Validity:
        longest = charter.lease_s_max
        return Validity(lease_s=longest if self.lease_s is None else min(self.lease_s, longest))


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What a generation is built from."""

    trust: OfflineTrust
    library: Library
    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A generation that was signed and that passed the verification of nodes."""

    material: Material
    metadata: Mapping[str, bytes]
    bundle: Bundle
    accepted: Accepted

    @property
    def number(self) -> int:
        return self.accepted.generation

    @property
    def etag(self) -> str:
        """What an etag of the fleet's plan is now: opaque to callers."""
        return f"g{self.number}"

    @property
    def charter(self) -> Charter:
        return self.accepted.charter

    @property
    def revocations(self) -> Revocations:
        """Everything that is revoked and not lifted."""
        return effective_revocations(self.charter, self.material.plan.revocations, self.accepted.belief.revocations)

    def rules(self, now: datetime) -> Rules:
        return Rules(charter=self.charter, revocations=self.revocations, now=now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """A generation as it travels, encoded once for the whole fleet. ``traceparent``: of its publication, or empty."""

    generation: int
    lease_version: int
    frame: bytes
    bundle_sha256: bytes
    timestamp: bytes
    traceparent: str = ""


def build(
    material: Material,
    *,
    metadata: Mapping[str, bytes] | None,
    belief: Belief,
    terms: Terms,
    charter: Charter,
    now: datetime,
    added: TemplateRef | None = None,
) -> Published:
    """Sign the next generation and verify it.

    Entries that may not run any more although nobody attacks (their approval has run out) leave the plan.

    Args:
        material: what to publish.
        metadata: that of the generation before; None for the first one.
        belief: what the control plane's own verification keeps.
        terms: keys and lifetimes.
        charter: the charter in ``material.trust``, not verified yet: it only chooses lifetimes and domains here.
        now: aware, UTC.
        added: a version that was just approved; it must pass the acceptance rule even if the plan does not name it.

    Raises:
        AgentFactoryError: what nodes would answer to this generation; nothing has changed.
    """
    known = effective_revocations(charter, material.plan.revocations, belief.revocations)
    if added is not None and (approved := material.library.get(added)) is not None:
        accept_template(approved.entry, material.library.materials(), charter=charter, revocations=known, now=now)
    published = _sign(material, metadata, belief, terms, charter, now)
    if not published.accepted.withdrawn:
        return published
    gone = {each.template for each in published.accepted.withdrawn}
    kept = tuple(each for each in material.plan.entries if each.template not in gone)
    narrowed = replace(material, plan=replace(material.plan, entries=kept))
    return _sign(narrowed, metadata, belief, terms, charter, now)


def with_renewed_lease(published: Published, *, terms: Terms, now: datetime) -> Published:
    """Sign a newer lease over the same generation, and verify it."""
    timestamp = renew_lease(
        published.metadata, signer=terms.signers.timestamp, validity=terms.validity(published.charter), now=now
    )
    accepted = trusted_set.renew_lease(published.accepted, timestamp, installation=terms.installation, now=now)
    return replace(
        published,
        metadata={**published.metadata, "timestamp.json": timestamp},
        bundle=published.bundle.with_timestamp(timestamp),
        accepted=accepted,
    )


def encode(published: Published) -> Update:
    """Return what every subscriber is sent.

    Raises:
        FrameRefusedError, BundleInvalidError: it has grown beyond what nodes take.
    """
    data = published.bundle.to_bytes()
    frame = compress(data)
    read_bundle(decompress(frame))
    return Update(
        generation=published.number,
        lease_version=published.accepted.lease.version,
        frame=frame,
        bundle_sha256=hashlib.sha256(data).digest(),
        timestamp=published.metadata["timestamp.json"],
    )


def is_refresh_due(published: Published, *, terms: Terms, now: datetime) -> bool:
    """Whether less than half of the life of an online role is left (the lease is renewed on its own)."""
    validity = terms.validity(published.charter)
    for role, expires in published.accepted.expires.items():
        match role:
            case "root" | "targets" | "timestamp":
                continue
            case "snapshot":
                life_s = validity.snapshot_s
            case "plan":
                life_s = validity.plan_s
            case _:
                life_s = validity.library_s
        if expires - now < timedelta(seconds=life_s / 2):
            return True
    return False


def _sign(
    material: Material,
    metadata: Mapping[str, bytes] | None,
    belief: Belief,
    terms: Terms,
    charter: Charter,
    now: datetime,
) -> Published:
    libraries = {
        domain: library for domain, library in material.library.by_domain().items() if domain in charter.domains
    }
    validity = terms.validity(charter)
    if metadata is not None and len(material.trust.roots) > sum(name.endswith(".root.json") for name in metadata):
        # A snapshot does not list roots: without a new number, nodes would not hear of the new root. One that is to
        # last more than twice as long as the present one is always signed anew.
        validity = replace(validity, snapshot_s=2 * validity.snapshot_s + 1)
    generation = publish(
        trust=material.trust,
        libraries=libraries,
        plan=material.plan,
        signers=terms.signers,
        validity=validity,
        now=now,
        previous=metadata,
    )
    bundle = generation.bundle()
    accepted = trusted_set.accept(bundle, belief=belief, installation=terms.installation, now=now)
    return Published(material=material, metadata=generation.metadata, bundle=bundle, accepted=accepted)
