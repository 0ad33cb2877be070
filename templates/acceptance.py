"""When a template may run: the one rule (design section 5, rule 4; ADR 4) that both planes and every reviewer apply.

Steps, numbered as in ADR 4. A failed step raises; nothing is trusted before the last one has passed.

A1  the bytes have the digest that the plan names, are canonical, and are the template that the plan names
A2  the charter names its domain
A3  the approval is DSSE with our payload type, an in-toto Statement v1 with our predicate type, and says this template,
    this digest, this author, this environment, these grants, limits and code
A4  every signature under a key of the charter verifies
A5  distinct persons who are reviewers of the domain, not revoked, and not the author (unless the domain says so) reach
    the threshold; the higher one if the template exceeds the domain's ceiling
A6  its image is accepted by the same rule, and is the code that the template pins
A7  the approval has not expired and does not run longer than the charter allows; neither the template nor any code of
    it is revoked; its version is not below the charter's floor
A8  (`check_capabilities`, once the code has been inspected here) the derived capabilities are the approved ones

A7 stands after the others because what it refuses was once in order: such a template is withdrawn, and does not make
the whole generation suspect (`WithdrawnError`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType

from templates.acceptance_errors import (
    TRUST_REASONS,
    AcceptanceError,
    ApprovalEnvironmentError,
    ApprovalExpiredError,
    ApprovalMismatchError,
    ApprovalMissingError,
    ApprovalTooLongError,
    AuthorApprovalError,
    BelowFloorError,
    CapabilitiesMismatchError,
    CodeRevokedError,
    DigestMismatchError,
    DocumentMissingError,
    DomainUnknownError,
    ImageMismatchError,
    OnePersonError,
    RevokedReviewerError,
    StrangerSignedError,
    TemplateRevokedError,
    UnderThresholdError,
    UnreadableError,
    WithdrawnError,
)
from templates.approval import Envelope, Signed, Statement, read_envelope, verify_signatures
from templates.canonical import sha256_hex
from templates.capabilities import Capabilities
from templates.charter import Charter, Domain
from templates.grants import Grants
from templates.limits import Limits
from templates.names import IMAGES_DOMAIN, TemplateRef
from templates.plan import PlanEntry
from templates.reasons import AgentFactoryError
from templates.resolved import ImagePin, PinnedModule, PinnedSource, ResolvedTemplate, read_resolved
from templates.revocations import NO_REVOCATIONS, Revocations
from templates.signed_document import time_text

__all__ = [
    "TRUST_REASONS",
    "AcceptanceError",
    "AcceptedTemplate",
    "ApprovalEnvironmentError",
    "ApprovalExpiredError",
    "ApprovalMismatchError",
    "ApprovalMissingError",
    "ApprovalTooLongError",
    "AuthorApprovalError",
    "BelowFloorError",
    "CapabilitiesMismatchError",
    "ClearedTemplate",
    "CodeRevokedError",
    "DigestMismatchError",
    "DocumentMissingError",
    "DomainUnknownError",
    "ImageMismatchError",
    "Material",
    "OnePersonError",
    "RevokedReviewerError",
    "StrangerSignedError",
    "Tally",
    "TemplateRevokedError",
    "UnderThresholdError",
    "UnreadableError",
    "WithdrawnError",
    "accept_template",
    "check_capabilities",
    "effective_revocations",
    "tally",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """The two documents of one template as they travelled."""

    resolved: bytes
    approval: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedTemplate:
    """Steps A1–A7 have passed. It may not run before `check_capabilities` has given a `ClearedTemplate`.

    ``approved_until`` is the date of its own approval, ``expires`` when the first of that and its image's runs out.
    """

    resolved: ResolvedTemplate
    sha256: str
    approval_sha256: str
    capabilities: Capabilities
    persons: frozenset[str]
    approved_until: datetime
    image: "AcceptedTemplate | None"

    @property
    def expires(self) -> datetime:
        return min(self.approved_until, self.image.approved_until) if self.image else self.approved_until

    @property
    def ref(self) -> TemplateRef:
        return self.resolved.ref

    @property
    def is_runnable(self) -> bool:
        """Whether agents can be made of it: it is neither abstract nor an image."""
        return not self.resolved.is_abstract and not self.resolved.is_image


NOTHING_EARLIER: Mapping[TemplateRef, AcceptedTemplate] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearedTemplate:
    """Step A8 has passed too: this template may run."""

    accepted: AcceptedTemplate


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How far the approvals of a change have come, for people to read; acceptance itself is `accept_template`."""

    counted: frozenset[str]
    needed: int
    above_ceiling: tuple[str, ...]
    """What exceeds the domain's ceiling, in words; empty when the ordinary threshold applies."""
    not_counted: Mapping[str, str]
    """Person or key id → why the signature does not count."""

    @property
    def is_reached(self) -> bool:
        return len(self.counted) >= self.needed


def tally(envelope: Envelope, charter: Charter, revocations: Revocations = NO_REVOCATIONS) -> Tally:
    """Count an envelope's signatures by steps A2, A4 and A5, whether or not they are enough.

    Raises:
        DomainUnknownError, SignatureInvalidError, ApprovalInvalidError
    """
    statement = envelope.statement()
    domain = _domain(statement.template, charter)
    signed, strangers = verify_signatures(envelope, charter)
    exceeded = _exceeded(domain, statement.capabilities.grants, statement.capabilities.limits)
    return _tally(signed, strangers, domain=domain, author=statement.author, exceeded=exceeded, revocations=revocations)


def accept_template(
    entry: PlanEntry,
    materials: Mapping[TemplateRef, Material],
    *,
    charter: Charter,
    revocations: Revocations,
    now: datetime,
    earlier: Mapping[TemplateRef, AcceptedTemplate] = NOTHING_EARLIER,
) -> AcceptedTemplate:
    """Apply steps A1–A7 to one template.

    Args:
        entry: what the plan names.
        materials: the documents of this template and of its image.
        charter: verified charter.
        revocations: all that are in force (`effective_revocations`).
        now: aware, UTC.
        earlier: what was accepted under an equal charter and equal revocations of reviewers: steps A1–A5 would say the
            same of the same bytes, and are not done twice.

    Raises:
        AcceptanceError: a subclass with its own reason per rule.
    """
    _domain(entry.template, charter)  # A2 first: nobody holds documents of unknown domains
    material = materials.get(entry.template)
    if material is None:
        raise DocumentMissingError("expected its document in the library, got none", template=entry.template)
    digest = sha256_hex(material.resolved)
    if digest != entry.sha256:  # A1
        raise DigestMismatchError(f"expected the digest {entry.sha256}, got {digest}", template=entry.template)
    template = _approved(entry.template, material, charter=charter, revocations=revocations, earlier=earlier)
    image = None
    if isinstance(template.resolved.code, PinnedSource):  # A6
        pin = template.resolved.code.image
        if pin.template.domain != IMAGES_DOMAIN or pin.template not in materials:
            raise ImageMismatchError(
                f"expected the image {pin.template} in the library, got none", template=entry.template
            )
        image = _approved(
            pin.template, materials[pin.template], charter=charter, revocations=revocations, earlier=earlier
        )
        _check_pin(pin, image, template=entry.template)
        _check_in_force(image, charter=charter, revocations=revocations, now=now)
    _check_in_force(template, charter=charter, revocations=revocations, now=now)  # A7
    return replace(template, image=image)


def effective_revocations(charter: Charter, *known: Revocations) -> Revocations:
    """Return everything revoked by the charter or in ``known``, without what the charter lifts."""
    revoked = charter.revocations
    for each in known:
        revoked = revoked.union(each)
    return revoked.without(charter.lifted)


def check_capabilities(accepted: AcceptedTemplate, derived: Capabilities) -> ClearedTemplate:
    """Step A8; raise `CapabilitiesMismatchError` unless both have the same canonical bytes."""
    approved, found = accepted.capabilities.to_json(), derived.to_json()
    if accepted.capabilities.to_bytes() != derived.to_bytes():
        places = [name for name in sorted(approved.keys() | found.keys()) if approved.get(name) != found.get(name)]
        raise CapabilitiesMismatchError(
            f"expected the approved capabilities, got others in {', '.join(places)}", template=accepted.ref
        )
    return ClearedTemplate(accepted=accepted)


def _approved(
    ref: TemplateRef,
    material: Material,
    *,
    charter: Charter,
    revocations: Revocations,
    earlier: Mapping[TemplateRef, AcceptedTemplate],
) -> AcceptedTemplate:
    """Apply steps A1–A5, which ask neither for the time nor for other templates."""
    digest = sha256_hex(material.resolved)
    approval_digest = sha256_hex(material.approval) if material.approval is not None else ""
    known = earlier.get(ref)
    if known is not None and (known.sha256, known.approval_sha256) == (digest, approval_digest):
        return known
    try:
        resolved = read_resolved(material.resolved)  # A1
    except AgentFactoryError as error:
        raise UnreadableError(error, template=ref) from None
    if resolved.ref != ref:
        raise DigestMismatchError(f"expected the document of {ref}, got {resolved.ref}", template=ref)
    domain = _domain(ref, charter)  # A2
    if material.approval is None:
        raise ApprovalMissingError("expected an approval, got none", template=ref)
    try:
        envelope = read_envelope(material.approval)  # A3
        statement = envelope.statement()
        signed, strangers = verify_signatures(envelope, charter)  # A4
    except AgentFactoryError as error:
        raise UnreadableError(error, template=ref) from None
    _check_statement(statement, resolved=resolved, digest=digest, environment=charter.environment)
    count = _tally(
        signed,
        strangers,
        domain=domain,
        author=resolved.author,
        exceeded=_exceeded(domain, resolved.grants, resolved.limits),
        revocations=revocations,
    )
    _check_threshold(count, signed, ref=ref)  # A5
    return AcceptedTemplate(
        resolved=resolved,
        sha256=digest,
        approval_sha256=approval_digest,
        capabilities=statement.capabilities,
        persons=count.counted,
        approved_until=statement.expires,
        image=None,
    )


def _domain(ref: TemplateRef, charter: Charter) -> Domain:
    domain = charter.domains.get(ref.domain)
    if domain is None:
        raise DomainUnknownError(f"expected a domain of the charter, got {ref.domain!r}", template=ref)
    return domain


def _check_statement(statement: Statement, *, resolved: ResolvedTemplate, digest: str, environment: str) -> None:
    ref = resolved.ref
    if statement.environment != environment:
        raise ApprovalEnvironmentError(
            f"expected an approval for environment {environment!r}, got {statement.environment!r}", template=ref
        )
    for what, expected, got in (
        ("template", str(ref), str(statement.template)),
        ("digest", digest, statement.sha256),
        ("author", resolved.author, statement.author),
    ):
        if got != expected:
            raise ApprovalMismatchError(f"expected an approval of {what} {expected}, got {got}", template=ref)
    approved = statement.capabilities
    for what, same in (
        ("template", approved.template == ref),
        ("code", approved.code == resolved.code),
        ("grants", approved.grants.to_json() == resolved.grants.to_json()),
        ("limits", approved.limits == resolved.limits),
        ("callers", set(approved.callers) == set(resolved.callers)),
        ("on_lease_expiry", approved.on_lease_expiry == resolved.on_lease_expiry),
    ):
        if not same:
            raise CapabilitiesMismatchError(
                f"expected the template's own {what} in the approval, got others", template=ref
            )


def _exceeded(domain: Domain, grants: Grants, limits: Limits) -> tuple[str, ...]:
    if domain.ceiling is None:
        return ()
    return tuple(f"grants{place.pointer}: {place.message}" for place in domain.ceiling.grants.excess(grants)) + tuple(
        f"limits/{name}: expected at most {getattr(domain.ceiling.limits, name)}, got {getattr(limits, name)}"
        for name in limits.beyond(domain.ceiling.limits)
    )


_AUTHOR, _REVOKED, _NOT_A_REVIEWER, _STRANGER = (
    "author",
    "revoked",
    "not a reviewer of the domain",
    "not in the charter",
)


def _tally(
    signed: tuple[Signed, ...],
    strangers: tuple[str, ...],
    *,
    domain: Domain,
    author: str,
    exceeded: tuple[str, ...],
    revocations: Revocations,
) -> Tally:
    counted: set[str] = set()
    not_counted = dict.fromkeys(strangers, _STRANGER)
    for person in sorted({each.person for each in signed}):
        if person not in domain.reviewers:
            not_counted[person] = _NOT_A_REVIEWER
        elif person in revocations.reviewers:
            not_counted[person] = _REVOKED
        elif person == author and not domain.self_review:
            not_counted[person] = _AUTHOR
        else:
            counted.add(person)
    above = domain.threshold_above_ceiling if exceeded else None
    return Tally(
        counted=frozenset(counted),
        needed=domain.threshold if above is None else above,
        above_ceiling=exceeded,
        not_counted=not_counted,
    )


def _check_threshold(count: Tally, signed: tuple[Signed, ...], *, ref: TemplateRef) -> None:
    if count.is_reached:
        return
    missing = count.needed - len(count.counted)
    why = list(count.not_counted.values())
    keys = sum(each.person in count.counted for each in signed)
    error: type[AcceptanceError] = UnderThresholdError
    if why.count(_REVOKED) >= missing:
        error = RevokedReviewerError
    elif why.count(_AUTHOR) >= missing:
        error = AuthorApprovalError
    elif why.count(_STRANGER) + why.count(_NOT_A_REVIEWER) >= missing:
        error = StrangerSignedError
    elif keys >= count.needed:
        error = OnePersonError
    others = "".join(f"; {who[:64]} does not count: {reason}" for who, reason in sorted(count.not_counted.items()))
    ceiling = f" (above the domain's ceiling: {'; '.join(count.above_ceiling)})" if count.above_ceiling else ""
    raise error(
        f"expected {count.needed} distinct reviewers{ceiling}, "
        f"got {len(count.counted)} ({', '.join(sorted(count.counted)) or 'none'}){others}",
        template=ref,
    )


def _check_pin(pin: ImagePin, image: AcceptedTemplate, *, template: TemplateRef) -> None:
    code = image.resolved.code
    if not isinstance(code, PinnedModule) or (code.module.sha256, code.module.length) != (pin.sha256, pin.length):
        raise ImageMismatchError(f"expected the image's module {pin.sha256}, got {code}", template=template)


def _check_in_force(template: AcceptedTemplate, *, charter: Charter, revocations: Revocations, now: datetime) -> None:
    """Step A7."""
    ref, code = template.ref, template.resolved.code
    if now >= template.approved_until:
        raise ApprovalExpiredError(
            f"expected an approval beyond {time_text(now)}, got one until {time_text(template.approved_until)}",
            template=ref,
        )
    latest = now + timedelta(days=charter.approval_days_max)
    if template.approved_until > latest:
        raise ApprovalTooLongError(
            f"expected an approval until {time_text(latest)}, got one until {time_text(template.approved_until)}",
            template=ref,
        )
    if template.sha256 in revocations.templates:
        raise TemplateRevokedError(f"expected a template that is not revoked, got {template.sha256}", template=ref)
    for blob in code.blobs() if code else ():
        if blob.sha256 in revocations.modules:
            raise CodeRevokedError(f"expected code that is not revoked, got {blob.sha256}", template=ref)
    floor = charter.floors.get(ref.template_name)
    if floor is not None and ref.version < floor:
        raise BelowFloorError(f"expected version {floor} or newer, got {ref.version}", template=ref)
