"""Roles: who holds which, and where. Deny by default; the decision that both planes ask for (ADR 20).

    role       held by                                                         scoped to
    viewer     persons, control planes                                         domains, tenants
    author     persons                                                         domains
    reviewer   persons whom the charter makes reviewers, and nobody else       their domains
    operator   persons                                                         domains, tenants
    admin      persons                                                         -
    node       nodes, by their certificates                                    themselves
    invoker    services, by their certificates                                 their tenant, and templates (charter)

A role file binds persons, and groups of persons, to viewer, author, operator and admin. Without one, every person whom
the installation's authority certified is viewer and author of every domain, and the persons of the charter are
operators and admins: that is the installation of a few people who know each other.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique
from types import MappingProxyType
from typing import Final

from service.identity import Identity, IdentityKind
from service.status import PermissionDeniedError
from templates.charter import Charter
from templates.revocations import NO_REVOCATIONS, Revocations

ANY: Final = "*"
EVERYWHERE: Final = frozenset({ANY})


@unique
class Role(StrEnum):
    VIEWER = "viewer"
    AUTHOR = "author"
    REVIEWER = "reviewer"
    OPERATOR = "operator"
    ADMIN = "admin"
    NODE = "node"
    INVOKER = "invoker"


@unique
class Effect(StrEnum):
    """What a method does; secure mode refuses WRITE (`service.access.protection`)."""

    READ = "read"
    INVOKE = "invoke"
    """Runs what is active; changes nothing of what that is."""
    WRITE = "write"
    PROTECT = "protect"
    """Takes something away: a revocation, a blocked address, secure mode itself."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of a table: who may call a method, and what it does."""

    effect: Effect
    roles: frozenset[Role]


def rule(effect: Effect, *roles: Role) -> Rule:
    return Rule(effect, frozenset(roles))


Rules = Mapping[str, Rule]
"""By "/package.Service/Method". A method that is not listed is nobody's."""

BINDABLE: Final = frozenset({Role.VIEWER, Role.AUTHOR, Role.OPERATOR, Role.ADMIN})
"""What a role file may give. Reviewers are named by the signed charter, nodes and services by their certificates."""

_KIND_ROLES: Final = MappingProxyType(
    {
        IdentityKind.SERVICE: Role.INVOKER,
        IdentityKind.NODE: Role.NODE,
        IdentityKind.CONTROL_PLANE: Role.VIEWER,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One role with its scope; ``*`` is everywhere."""

    role: Role
    domains: frozenset[str] = EVERYWHERE
    tenants: frozenset[str] = EVERYWHERE

    def covers(self, *, domain: str | None, tenant: str | None) -> bool:
        """Say whether the scope holds ``domain`` and ``tenant``; None stands for any that there is."""
        return (domain is None or ANY in self.domains or domain in self.domains) and (
            tenant is None or ANY in self.tenants or tenant in self.tenants
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A line of the role file: these persons, and members of these groups, hold ``held``."""

    held: Held
    persons: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RoleBook:
    """The role file, read."""

    bindings: tuple[Binding, ...]

    def of(self, person: str, groups: Collection[str]) -> tuple[Held, ...]:
        return tuple(
            each.held for each in self.bindings if person in each.persons or not each.groups.isdisjoint(groups)
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """All roles of one peer."""

    held: tuple[Held, ...]
    roles: frozenset[Role] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "roles", frozenset(each.role for each in self.held))

    def permits(self, roles: Collection[Role], *, domain: str | None = None, tenant: str | None = None) -> bool:
        """Say whether one of ``roles`` is held for ``domain`` and ``tenant``."""
        return any(each.role in roles and each.covers(domain=domain, tenant=tenant) for each in self.held)


NOBODY: Final = Standing(())


def standing(
    identity: Identity,
    groups: Collection[str] = (),
    *,
    book: RoleBook | None,
    charter: Charter | None,
    revocations: Revocations = NO_REVOCATIONS,
) -> Standing:
    """Return the roles of a peer that has shown who it is.

    Args:
        identity: whose certificate, or token, was verified.
        groups: of a person, from a token.
        book: the role file; None: there is none.
        charter: in force; None: a node that has accepted no generation yet.
        revocations: in force: a person who is revoked there holds nothing, whatever a role file says.
    """
    of_kind = _KIND_ROLES.get(identity.kind)
    if of_kind is not None:
        tenants = EVERYWHERE if identity.tenant is None else frozenset({identity.tenant})
        return Standing((Held(role=of_kind, tenants=tenants),))
    person = identity.name
    if person in revocations.reviewers:
        return NOBODY
    return Standing((*_bound(person, groups, book, charter), *_reviewer(person, charter)))


def _bound(person: str, groups: Collection[str], book: RoleBook | None, charter: Charter | None) -> Iterable[Held]:
    if book is not None:
        return book.of(person, groups)
    held = [Held(role=Role.VIEWER), Held(role=Role.AUTHOR)]
    if charter is None or person in charter.persons:
        held += [Held(role=Role.OPERATOR), Held(role=Role.ADMIN)]
    return held


def _reviewer(person: str, charter: Charter | None) -> Iterable[Held]:
    domains = frozenset(
        name for name, domain in (charter.domains if charter else {}).items() if person in domain.reviewers
    )
    return [Held(role=Role.REVIEWER, domains=domains)] if domains else []


def require(
    held: Standing, rules: Rules, method: str, *, who: str, domain: str | None = None, tenant: str | None = None
) -> None:
    """Raise `PermissionDeniedError` unless ``method`` is in the table and ``held`` has one of its roles there."""
    found = rules.get(method)
    if found is None:
        raise PermissionDeniedError(f"expected a method that somebody may call, got {method}")
    if not held.permits(found.roles, domain=domain, tenant=tenant):
        where = "".join(
            f" for the {kind} {name}" for kind, name in (("domain", domain), ("tenant", tenant)) if name is not None
        )
        raise PermissionDeniedError(
            f"expected {' or '.join(sorted(found.roles))}{where} to call {method.rpartition('/')[2]}, got {who}"
            f" ({', '.join(sorted(held.roles)) or 'no role'})"
        )
