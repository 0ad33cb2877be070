"""What time does to a generation that was accepted: leases run out, then the charter's patience, then approvals."""

from datetime import datetime, timedelta

from templates.document import LeaseExpiry
from templates.reasons import Reason
from templates.trusted_set_values import Accepted, Freshness, Withdrawn


def freshness(accepted: Accepted, *, now: datetime) -> Freshness:
    """Say whether everything signed still runs, and whether the charter still lets this node serve at all."""
    if now >= accepted.lease.signed_at + timedelta(seconds=accepted.charter.staleness_s_max):
        return Freshness.STALE
    if now >= min(accepted.expires.values()):
        return Freshness.EXPIRED
    return Freshness.FRESH


def in_force(on_lease_expiry: LeaseExpiry, current: Freshness) -> LeaseExpiry:
    """Return what a template does now: ``continue`` while fresh, its own choice when expired, ``stop`` when stale."""
    match current:
        case Freshness.FRESH:
            return LeaseExpiry.CONTINUE
        case Freshness.EXPIRED:
            return on_lease_expiry
        case Freshness.STALE:
            return LeaseExpiry.STOP


def withdrawn_since(accepted: Accepted, *, now: datetime) -> tuple[Withdrawn, ...]:
    """Return the templates whose approvals have run out since the generation was accepted; ask from time to time."""
    return tuple(
        Withdrawn(
            template=template.ref,
            reason=Reason.APPROVAL_EXPIRED,
            message=f"{template.ref}: expected an approval that still runs, got one that has run out",
        )
        for template in accepted.templates.values()
        if now >= template.expires
    )
