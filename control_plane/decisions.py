"""What the audit log says of changes, generations and trust documents: names and digests, never their content."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from control_plane.audit import Decision
from control_plane.review import Change
from templates.canonical import sha256_hex
from templates.plan import Plan
from templates.repository import OfflineTrust
from templates.revocations import Revocations


def of_submission(change: Change, number: int) -> Decision:
    """Tell of a new change that was stored under ``number``."""
    told = of_change(change)
    return replace(
        told, resource=f"changes/{number}", digests={**told.digests, "document": sha256_hex(change.document)}
    )


def of_change(change: Change, *, envelope: bytes = b"", approvers: Collection[str] = (), reason: str = "") -> Decision:
    """Tell of what became of a change; ``envelope`` and ``approvers`` are those of an approval."""
    digests = {
        "template": change.sha256,
        "approval": sha256_hex(envelope) if envelope else "",
        "code": change.code_sha256,
    }
    details = {"template": str(change.ref), "approvers": ",".join(sorted(approvers)), "state": str(change.state)}
    return Decision(
        resource=change.name,
        reason=reason,
        digests={name: digest for name, digest in digests.items() if digest},
        details={name: text for name, text in details.items() if text},
    )


def of_generation(decision: Decision | None, number: int, *, cause: str, bundle: str, plan: Plan) -> Decision:
    """Add to a decision which generation it made; without one the generation itself is what was decided."""
    told = decision or Decision(resource=f"generations/{number}")
    return replace(
        told,
        digests={**told.digests, "bundle": bundle, "plan": sha256_hex(plan.to_bytes())},
        details={**told.details, "generation": str(number), "cause": cause.partition(":")[0]},
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
