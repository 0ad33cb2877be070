"""Who a peer is: exactly one SPIFFE URI in its certificate (design, section 7).

The four forms are listed in ``_FORMS``; everything else is refused: no certificate can be read in two ways.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Final, Self

from cryptography import x509

from templates.reasons import AgentFactoryError, Reason

URI_CHARACTERS_MAX: Final = 512

_PART = r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?"
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,126}[a-z0-9])?")
_NAME: Final = re.compile(_PART)


@unique
class IdentityKind(StrEnum):
    """What a certificate may stand for."""

    SERVICE = "service"
    NODE = "node"
    CONTROL_PLANE = "control-plane"
    PERSON = "person"


_FORMS: Final = (
    (IdentityKind.SERVICE, re.compile(rf"/tenant/(?P<tenant>{_PART})/service/(?P<name>{_PART})")),
    (IdentityKind.NODE, re.compile(rf"/node/(?P<name>{_PART})")),
    (IdentityKind.CONTROL_PLANE, re.compile(rf"/control-plane/(?P<name>{_PART})")),
    (IdentityKind.PERSON, re.compile(rf"/person/(?P<name>{_PART})")),
)


class InvalidIdentityError(AgentFactoryError):
    """The peer showed no identity, several, or one in a form that is not ours."""

    reason = Reason.INVALID_IDENTITY


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One authenticated peer. ``tenant`` is set for services and for nothing else."""

    trust_domain: str
    kind: IdentityKind
    name: str
    tenant: str | None = None

    def __post_init__(self) -> None:
        if not _TRUST_DOMAIN.fullmatch(self.trust_domain):
            raise InvalidIdentityError(f"expected a trust domain such as 'factory.local', got {self.trust_domain!r}")
        for part in (self.name, *(() if self.tenant is None else (self.tenant,))):
            if not _NAME.fullmatch(part):
                raise InvalidIdentityError(f"expected 1 to 64 of a-z 0-9 . _ - in an identity, got {part!r}")
        if (self.tenant is not None) != (self.kind is IdentityKind.SERVICE):
            raise InvalidIdentityError("expected a tenant for a service and for nothing else")

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Read ``spiffe://<trust domain>/…`` in one of the four forms.

        Raises:
            InvalidIdentityError: any other text, however close.
        """
        scheme = "spiffe://"
        if len(uri) > URI_CHARACTERS_MAX or not uri.startswith(scheme):
            raise InvalidIdentityError(f"expected {scheme}…, got {uri[:80]!r}")
        trust_domain, slash, path = uri.removeprefix(scheme).partition("/")
        for kind, form in _FORMS:
            if found := form.fullmatch(slash + path):
                parts = found.groupdict()
                return cls(trust_domain=trust_domain, kind=kind, name=parts["name"], tenant=parts.get("tenant"))
        raise InvalidIdentityError(
            f"expected …/tenant/T/service/S, …/node/N, …/control-plane/C or …/person/P, got {uri[:200]!r}"
        )

    @classmethod
    def service(cls, trust_domain: str, tenant: str, name: str) -> Self:
        return cls(trust_domain=trust_domain, kind=IdentityKind.SERVICE, tenant=tenant, name=name)

    @classmethod
    def node(cls, trust_domain: str, name: str) -> Self:
        return cls(trust_domain=trust_domain, kind=IdentityKind.NODE, name=name)

    @classmethod
    def control_plane(cls, trust_domain: str, name: str) -> Self:
        return cls(trust_domain=trust_domain, kind=IdentityKind.CONTROL_PLANE, name=name)

    @classmethod
    def person(cls, trust_domain: str, name: str) -> Self:
        return cls(trust_domain=trust_domain, kind=IdentityKind.PERSON, name=name)

    @property
    def uri(self) -> str:
        """The text that stands in the certificate; ``parse`` is its inverse."""
        if self.kind is IdentityKind.SERVICE:
            return f"spiffe://{self.trust_domain}/tenant/{self.tenant}/service/{self.name}"
        return f"spiffe://{self.trust_domain}/{self.kind}/{self.name}"

    def __str__(self) -> str:
        return self.uri


def only_identity(uris: Sequence[str]) -> Identity:
    """Return the identity of a peer that showed ``uris``.

    Raises:
        InvalidIdentityError: none, more than one, or a form that is not ours.
    """
    if len(uris) != 1:
        raise InvalidIdentityError(f"expected exactly one URI name in the certificate, got {len(uris)}")
    return Identity.parse(uris[0])


def identity_of_certificate(certificate: x509.Certificate) -> Identity:
    """Return the identity that ``certificate`` names; says nothing about who signed it.

    Raises:
        InvalidIdentityError: no URI name, more than one, or a form that is not ours.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError) as error:
        raise InvalidIdentityError("expected a certificate with a subject alternative name") from error
    return only_identity(names.get_values_for_type(x509.UniformResourceIdentifier))
