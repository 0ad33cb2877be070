"""The table RPC × role of the control plane. Deny by default: a method that is not listed is nobody's.

A submission does nothing before reviewers, whom the charter names, have approved it. Approving takes a reviewer's
signature, not a certificate: whoever may look may carry an envelope. Rejecting takes a reviewer of the domain or the
author; revoking and rolling back take a reviewer of the domain or an operator; new trust documents carry their own
signatures (ADR 5). Scopes are judged where the domain is known: by the servicers (`service.access.authority`).
"""

from collections.abc import Iterator
from types import MappingProxyType
from typing import Final

from service.access.roles import ANY, Effect, Held, Role, Rules, Standing, rule
from service.peer import Peer

ADMIN: Final = "/agentfactory.admin.v1."
_PUSH: Final = "/agentfactory.distribution.v1.DistributionService/"

_PEOPLE: Final = (Role.VIEWER, Role.AUTHOR, Role.REVIEWER, Role.OPERATOR, Role.ADMIN)
_LOOK: Final = rule(Effect.READ, *_PEOPLE)
_AUDIT: Final = rule(Effect.READ, Role.VIEWER, Role.OPERATOR, Role.ADMIN)
"""The log is one for all domains and tenants: whoever reads it holds one of these roles everywhere."""

RULES: Final[Rules] = MappingProxyType(
    {
        f"{ADMIN}TemplateService/SubmitTemplate": rule(Effect.WRITE, Role.AUTHOR),
        f"{ADMIN}TemplateService/GetTemplate": _LOOK,
        f"{ADMIN}TemplateService/ListTemplates": _LOOK,
        f"{ADMIN}ChangeService/GetChange": _LOOK,
        f"{ADMIN}ChangeService/ListChanges": _LOOK,
        f"{ADMIN}ChangeService/FetchChange": _LOOK,
        f"{ADMIN}ChangeService/ApproveChange": rule(Effect.WRITE, Role.AUTHOR, Role.REVIEWER, Role.OPERATOR),
        f"{ADMIN}ChangeService/ListChangeEvents": _LOOK,
        f"{ADMIN}ChangeService/SubmitChange": rule(Effect.WRITE, Role.AUTHOR),
        f"{ADMIN}ChangeService/WithdrawChange": rule(Effect.WRITE, Role.AUTHOR),
        f"{ADMIN}ChangeService/CommentOnChange": rule(Effect.WRITE, Role.AUTHOR, Role.REVIEWER, Role.OPERATOR),
        f"{ADMIN}ChangeService/DeprecateChange": rule(Effect.WRITE, Role.AUTHOR, Role.REVIEWER, Role.OPERATOR),
        f"{ADMIN}ChangeService/RestoreChange": rule(Effect.WRITE, Role.AUTHOR, Role.REVIEWER, Role.OPERATOR),
        f"{ADMIN}ChangeService/RejectChange": rule(Effect.WRITE, Role.AUTHOR, Role.REVIEWER),
        f"{ADMIN}RolloutService/Rollback": rule(Effect.WRITE, Role.REVIEWER, Role.OPERATOR),
        f"{ADMIN}RolloutService/ListGenerations": _LOOK,
        f"{ADMIN}RolloutService/Revoke": rule(Effect.PROTECT, Role.REVIEWER, Role.OPERATOR, Role.ADMIN),
        f"{ADMIN}FleetService/ListNodes": _LOOK,
        f"{ADMIN}KeyService/ListRoles": _LOOK,
        f"{ADMIN}KeyService/GetTrust": _LOOK,
        f"{ADMIN}KeyService/UpdateTrust": rule(Effect.WRITE, Role.AUTHOR, Role.OPERATOR, Role.ADMIN),
        f"{ADMIN}PolicyService/GetPolicy": _LOOK,
        f"{ADMIN}PolicyService/OpenBreakGlass": rule(Effect.WRITE, Role.REVIEWER),
        f"{ADMIN}PolicyService/ConfirmBreakGlass": rule(Effect.WRITE, Role.REVIEWER),
        f"{ADMIN}PolicyService/CloseBreakGlass": rule(Effect.PROTECT, Role.REVIEWER),
        f"{ADMIN}PolicyService/ListBreakGlass": _LOOK,
        f"{ADMIN}AuditService/ListAuditEntries": _AUDIT,
        f"{ADMIN}AuditService/GetAuditEntry": _AUDIT,
        f"{ADMIN}AuditService/ExportAudit": _AUDIT,
        f"{ADMIN}AuditService/VerifyAudit": _AUDIT,
        f"{ADMIN}AccessService/GetCaller": rule(Effect.READ, *Role),
        f"{ADMIN}AccessService/GetAccess": rule(Effect.READ, Role.OPERATOR, Role.ADMIN),
        f"{ADMIN}AccessService/SetSecureMode": rule(Effect.PROTECT, Role.ADMIN),
        f"{ADMIN}AccessService/BlockAddress": rule(Effect.PROTECT, Role.OPERATOR, Role.ADMIN),
        f"{ADMIN}AccessService/UnblockAddress": rule(Effect.PROTECT, Role.OPERATOR, Role.ADMIN),
        f"{_PUSH}Subscribe": rule(Effect.READ, Role.NODE),
        f"{_PUSH}FetchBlobs": rule(Effect.READ, Role.NODE),
    }
)

ENDLESS: Final = frozenset({f"{_PUSH}Subscribe"})
"""Streams that last as long as both ends."""

SERVICE_NAMES: Final = tuple(dict.fromkeys(method[1:].partition("/")[0] for method in RULES))


def roles_of(peer: Peer, standing: Standing) -> tuple[str, ...]:
    """Return what the audit log calls the roles of a peer: its kind, and each role with the scopes that bound it."""
    return (str(peer.identity.kind), *dict.fromkeys(name for held in standing.held for name in _named(held)))


def _named(held: Held) -> Iterator[str]:
    for domain in sorted(held.domains):
        for tenant in sorted(held.tenants):
            scope = "/".join(each for each in (domain, tenant) if each != ANY)
            yield f"{held.role}:{scope}" if scope else str(held.role)
