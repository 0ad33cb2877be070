"""What the audit log says of changes, generations and trust documents: names and digests, never their content."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from control_plane.audit import Decision
from control_plane.lifecycle import Action
from control_plane.review import Change, Step
from templates.canonical import sha256_hex
from templates.plan import Plan
from templates.repository import OfflineTrust
from templates.revocations import Revocations


class GenerationRecord(Protocol):
    """What is told of `control_plane.sqlite_store.GenerationRecord`, which tells its own entries by this module."""

    @property
    def number(self) -> int: ...
    @property
    def cause(self) -> str: ...
    @property
    def plan(self) -> Plan: ...
    @property
    def bundle_sha256(self) -> str: ...


_WITH_REASON = frozenset({Action.REJECT, Action.WITHDRAW, Action.DEPRECATE, Action.RESTORE, Action.REVOKE})
"""Actions for which a person gives a reason. A comment is no reason: its digest is enough."""


def of_submission(change: Change, number: int) -> Decision:
    """Tell of a new change that was stored under ``number``."""
    return Decision(
        resource=f"changes/{number}",
        digests={**_digests(change), "document": sha256_hex(change.document)},
        details={"template": str(change.ref), "state": str(change.state)},
    )


def of_step(step: Step) -> Decision:
    """Tell of what persons did to a change."""
    change, digests = step.change, _digests(step.change)
    if step.action is Action.APPROVE and change.envelope:
        digests["approval"] = sha256_hex(change.envelope)
    if step.action is Action.COMMENT:
        digests["comment"] = sha256_hex(step.text.encode())
    return Decision(
        resource=change.name,
        reason=step.text if step.action in _WITH_REASON else "",
        digests=digests,
        details={
            "template": str(change.ref),
            "step": str(step.action),
            "by": ",".join(step.by),
            "before": str(step.before),
            "state": str(change.state),
        },
    )


def of_generation(decision: Decision | None, record: GenerationRecord) -> Decision:
    """Add to a decision which generation it made; without one the generation itself is what was decided."""
    told = decision or Decision(resource=f"generations/{record.number}")
    return replace(
        told,
        digests={**told.digests, "bundle": record.bundle_sha256, "plan": sha256_hex(record.plan.to_bytes())},
        details={**told.details, "generation": str(record.number), "cause": record.cause.partition(":")[0]},
    )


def of_trust(trust: OfflineTrust) -> Decision:
    """Tell of offline-signed documents that took effect."""
    return Decision(
        resource="trust/charter",
        digests={
            "charter": sha256_hex(trust.charter),
            "targets": sha256_hex(trust.targets),
            "root": sha256_hex(trust.roots[-1]),
        },
    )


def revoked_digests(added: Revocations) -> Mapping[str, str]:
    """Return the digests that a revocation names: one template or one module."""
    found = {"template": added.templates, "module": added.modules}
    return {name: next(iter(digests)) for name, digests in found.items() if digests}


def _digests(change: Change) -> dict[str, str]:
    return {"template": change.sha256, **({"code": change.code_sha256} if change.code_sha256 else {})}
