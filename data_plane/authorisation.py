"""Who may call which service of a node. Deny by default: a method that is not listed is nobody's."""

from functools import lru_cache
from types import MappingProxyType
from typing import Final

from service.identity import Identity, IdentityKind
from service.status import PermissionDeniedError
from templates.acceptance import effective_revocations
from templates.trusted_set import Accepted

AGENT_SERVICE: Final = "agentfactory.agent.v1.AgentService"
NODE_SERVICE: Final = "agentfactory.node.v1.NodeService"

_SERVICES: Final = MappingProxyType(
    {
        f"/{AGENT_SERVICE}/": frozenset({IdentityKind.SERVICE}),
        f"/{NODE_SERVICE}/GetNodeStatus": frozenset({IdentityKind.PERSON, IdentityKind.CONTROL_PLANE}),
        f"/{NODE_SERVICE}/Drain": frozenset({IdentityKind.PERSON}),
    }
)


def authorise(identity: Identity, method: str) -> None:
    """Raise `PermissionDeniedError` unless this kind of identity may call ``method``.

    Agents belong to tenants, which only services have. Operators are persons; a control plane may look, not act.
    """
    if identity.kind not in _kinds_for(method):
        raise PermissionDeniedError(f"expected an identity that may call {method}, got a {identity.kind}: {identity}")


@lru_cache(maxsize=128)  # more than there are methods: names that do not exist never come this far
def _kinds_for(method: str) -> frozenset[IdentityKind]:
    for prefix, kinds in _SERVICES.items():
        if method.startswith(prefix):
            return kinds
    return frozenset()


def require_operator(identity: Identity, accepted: Accepted | None) -> None:
    """Raise `PermissionDeniedError` unless the charter names this person and nothing revokes them.

    The installation's authority certifies authors too, and whoever drains every node stops the service. A node that
    has accepted no charter yet serves nobody, and may be drained by any person.
    """
    if accepted is None:
        return
    revoked = effective_revocations(accepted.charter, accepted.belief.revocations).reviewers
    if identity.name not in accepted.charter.persons or identity.name in revoked:
        raise PermissionDeniedError(f"expected a person of the charter in good standing, got {identity}")
