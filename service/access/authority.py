"""Who may do what here: the tables and standings of `service.access.roles`, remembered for as long as they hold.

authority = Authority(RULES, ground)
authority.authorise(peer, method)                        # the guard: has the peer one of the method's roles at all?
authority.require(peer, method, domain="documentation")  # a servicer: has it one there?
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from service.access.roles import ANY, Role, RoleBook, Rules, Standing, require, standing
from service.identity import Identity, IdentityKind
from service.peer import Peer
from service.status import PermissionDeniedError
from templates.charter import Charter
from templates.revocations import NO_REVOCATIONS, Revocations

STANDINGS_REMEMBERED_MAX: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What standings are judged by. Whoever gives it gives the same object until something in it has changed."""

    book: RoleBook | None = None
    charter: Charter | None = None
    revocations: Revocations = NO_REVOCATIONS


NO_GROUND: Final = Ground()

Present = TypeVar("Present")


class GroundKeeper(Generic[Present]):
    """Makes the ground anew when what is in force, or the role file, has become another object.

    Args:
        present: what is in force now: a generation, or None before the first.
        read: its charter and everything that is revoked.
    """

    def __init__(
        self, present: Callable[[], Present | None], read: Callable[[Present], tuple[Charter, Revocations]]
    ) -> None:
        self._present = present
        self._read = read
        self._seen: tuple[Present | None, RoleBook | None] = (None, None)
        self._ground = NO_GROUND
        self.book: RoleBook | None = None

    def __call__(self) -> Ground:
        present = self._present()
        if present is not self._seen[0] or self.book is not self._seen[1]:
            charter, revocations = (None, NO_REVOCATIONS) if present is None else self._read(present)
            self._ground = Ground(book=self.book, charter=charter, revocations=revocations)
            self._seen = (present, self.book)
        return self._ground


class Authority:
    """Decides, and remembers standings until the ground changes."""

    def __init__(self, rules: Rules, ground: Callable[[], Ground] = lambda: NO_GROUND) -> None:
        self.rules = rules
        self._ground_of = ground
        self._ground = ground()
        self._standings: dict[tuple[Identity, frozenset[str]], Standing] = {}
        # Roles of machines hang on nothing but the kind of their certificate: their methods are settled once.
        self._settled: dict[IdentityKind, frozenset[str]] = {
            kind: frozenset(method for method, rule in rules.items() if roles & rule.roles)
            for kind, roles in (
                (kind, standing(_example(kind), book=None, charter=None).roles)
                for kind in IdentityKind
                if kind is not IdentityKind.PERSON
            )
        }

    @property
    def ground(self) -> Ground:
        """What standings are judged by now."""
        return self._ground_of()

    def authorise(self, peer: Peer, method: str) -> None:
        """Raise `PermissionDeniedError` unless ``peer`` has a role that may call ``method`` somewhere."""
        settled = self._settled.get(peer.identity.kind)
        if settled is None:
            require(self.standing(peer), self.rules, method, who=peer.uri)
        elif method not in settled:
            raise PermissionDeniedError(
                f"expected an identity that may call {method}, got a {peer.identity.kind}: {peer.uri}"
            )

    def require(self, peer: Peer, method: str, *, domain: str | None = None, tenant: str | None = None) -> None:
        """Raise `PermissionDeniedError` unless ``peer`` may call ``method`` for this domain and tenant."""
        require(self.standing(peer), self.rules, method, who=peer.uri, domain=domain, tenant=tenant)

    def require_everywhere(self, peer: Peer, method: str) -> None:
        """Raise `PermissionDeniedError` unless ``peer`` may call ``method`` for everybody: its effect knows no scopes.

        Where the table names reviewers, one of any domain will do.
        """
        found = self.rules.get(method)
        if found is None or Role.REVIEWER not in self.standing(peer).roles & found.roles:
            self.require(peer, method, domain=ANY, tenant=ANY)

    def permits(self, peer: Peer, method: str, *, domain: str | None = None, tenant: str | None = None) -> bool:
        """Say the same of one of many: what a list leaves out."""
        found = self.rules.get(method)
        return found is not None and self.standing(peer).permits(found.roles, domain=domain, tenant=tenant)

    def standing(self, peer: Peer) -> Standing:
        """Return the roles of ``peer``."""
        ground = self._ground_of()
        if ground is not self._ground or len(self._standings) >= STANDINGS_REMEMBERED_MAX:
            self._ground = ground
            self._standings.clear()
        key = (peer.identity, peer.groups)
        known = self._standings.get(key)
        if known is None:
            known = self._standings[key] = standing(
                peer.identity, peer.groups, book=ground.book, charter=ground.charter, revocations=ground.revocations
            )
        return known


def _example(kind: IdentityKind) -> Identity:
    tenant = "any" if kind is IdentityKind.SERVICE else None
    return Identity(trust_domain="any", kind=kind, name="any", tenant=tenant)
