"""When a template may run: the one rule (design section 5, rule 4; ADR 4) that both planes and every reviewer apply.

Steps, numbered as in ADR 4; a failed step raises, nothing is trusted before the last one has passed:

A1  the bytes have the digest that the plan names, are canonical, and are the template that the plan names
A2  the charter names its domain
A3  the approval is DSSE with our payload type, an in-toto Statement v1 with our predicate type, and says this template, this
    digest, this author, this environment
A4  the approval has not expired, and does not run longer than the charter allows
A5  every signature under a key of the charter verifies
A6  distinct persons who are reviewers of the domain, not revoked, and not the author (unless the domain says so) reach the
    threshold; the higher one if the capabilities exceed the domain's ceiling
A7  neither the template nor any code of it is revoked, and its version is not below the charter's floor
A8  its image is accepted by the same rule, and is the code that the template pins
A9  (`check_capabilities`, once the code has been inspected here) the derived capabilities are the approved ones
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from templates.approval import Envelope
from templates.capabilities import Capabilities
from templates.charter import Charter
from templates.names import TemplateRef
from templates.plan import PlanEntry
from templates.reasons import AgentFactoryError, Reason
from templates.resolved import ResolvedTemplate
from templates.revocations import Revocations


class AcceptanceError(AgentFactoryError):
    """A template may not run; ``template`` says which, `reason` why."""

    def __init__(self, message: str, *, template: TemplateRef) -> None:
        self.template = template
        super().__init__(f"{template}: {message}", metadata={"template": str(template)})


class UnderThresholdError(AcceptanceError):
    """Too few reviewers signed."""

    reason = Reason.APPROVAL_UNDER_THRESHOLD


class CapabilitiesMismatchError(AcceptanceError):
    """What the code can do here is not what was approved."""

    reason = Reason.CAPABILITIES_MISMATCH


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """The two documents of one template as they travelled."""

    resolved: bytes
    approval: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedTemplate:
    """Steps A1–A8 have passed. It may not run before `check_capabilities` has given a `ClearedTemplate`."""

    resolved: ResolvedTemplate
    sha256: str
    approval_sha256: str
    capabilities: Capabilities
    persons: frozenset[str]
    expires: datetime
    image: "AcceptedTemplate | None"

    @property
    def ref(self) -> TemplateRef:
        return self.resolved.ref


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearedTemplate:
    """Step A9 has passed too: this template may run."""

    accepted: AcceptedTemplate


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How far the approvals of a change have come, for people to read; acceptance itself is `accept_template`."""

    counted: frozenset[str]
    needed: int
    above_ceiling: bool
    not_counted: Mapping[str, str]
    """Person or key id → why the signature does not count."""

    @property
    def is_reached(self) -> bool:
        return len(self.counted) >= self.needed


def tally(envelope: Envelope, charter: Charter, revocations: Revocations) -> Tally:
    """Count an envelope's signatures by step A6.

    Raises:
        DomainUnknownError, SignatureInvalidError, ApprovalInvalidError
    """
    raise NotImplementedError


def accept_template(
    entry: PlanEntry,
    materials: Mapping[TemplateRef, Material],
    *,
    charter: Charter,
    revocations: Revocations,
    now: datetime,
) -> AcceptedTemplate:
    """Apply steps A1–A8 to one template.

    Args:
        entry: what the plan names.
        materials: the documents of this template and of its image.
        charter: verified charter.
        revocations: all that are in force (`effective_revocations`).
        now: aware, UTC.

    Raises:
        AcceptanceError: a subclass with its own reason per rule.
    """
    raise NotImplementedError


def effective_revocations(charter: Charter, *known: Revocations) -> Revocations:
    """Return everything revoked by the charter or in ``known``, without what the charter lifts."""
    raise NotImplementedError


def check_capabilities(accepted: AcceptedTemplate, derived: Capabilities) -> ClearedTemplate:
    """Step A9; raise `CapabilitiesMismatchError` unless both have the same canonical bytes."""
    raise NotImplementedError
