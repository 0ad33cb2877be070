"""Who may call which service: nodes the push protocol, persons everything else; what a person may do is decided later.

Any person whom the installation's authority certified may read and submit: a submission does nothing before reviewers,
whom the charter names, have approved it. Approving takes a reviewer's signature, not a certificate. Rejecting takes a
reviewer of the domain or the author; rolling back and revoking take a reviewer named in the charter; new trust
documents carry their own signatures (ADR 5).
"""

from types import MappingProxyType

from service.identity import Identity, IdentityKind
from service.status import PermissionDeniedError
from templates.charter import Charter
from templates.revocations import Revocations

_KINDS = MappingProxyType(
    {
        "agentfactory.distribution.v1.DistributionService": IdentityKind.NODE,
        "agentfactory.admin.v1.TemplateService": IdentityKind.PERSON,
        "agentfactory.admin.v1.ChangeService": IdentityKind.PERSON,
        "agentfactory.admin.v1.RolloutService": IdentityKind.PERSON,
        "agentfactory.admin.v1.FleetService": IdentityKind.PERSON,
        "agentfactory.admin.v1.KeyService": IdentityKind.PERSON,
        "agentfactory.admin.v1.PolicyService": IdentityKind.PERSON,
        "agentfactory.admin.v1.AuditService": IdentityKind.PERSON,
    }
)

SERVICE_NAMES = tuple(_KINDS)


def authorise(identity: Identity, method: str) -> None:
    """Raise `PermissionDeniedError` unless peers of this kind may call ``method`` ("/package.Service/Method")."""
    service = method[1:].partition("/")[0]
    expected = _KINDS.get(service)
    if expected is None or identity.kind is not expected:
        raise PermissionDeniedError(f"expected a {expected or 'known service'} for {service}, got {identity.uri}")


def roles_of(identity: Identity, charter: Charter, revocations: Revocations) -> tuple[str, ...]:
    """Return what the audit log calls the roles of a peer: its kind, and the domains that a person reviews."""
    if identity.kind is not IdentityKind.PERSON or identity.name in revocations.reviewers:
        return (str(identity.kind),)
    reviewed = sorted(name for name, domain in charter.domains.items() if identity.name in domain.reviewers)
    return (str(identity.kind), *(f"reviewer:{name}" for name in reviewed))


def require_reviewer(person: str, charter: Charter, revocations: Revocations, *, domain: str | None = None) -> None:
    """Raise `PermissionDeniedError` unless ``person`` reviews ``domain`` (None: any domain) and is not revoked."""
    reviewed = {name for name, each in charter.domains.items() if person in each.reviewers}
    if person in revocations.reviewers:
        raise PermissionDeniedError(f"expected a reviewer in good standing, {person} is revoked")
    if not reviewed or (domain is not None and domain not in reviewed):
        where = f"the domain {domain}" if domain else "a domain of the charter"
        raise PermissionDeniedError(f"expected a reviewer of {where}, got {person}")
