"""Breaking the glass: two persons put the admission policies aside for one template version, with a reason, for a time.

State    Fact                                     Next
-        opened by a reviewer, with a reason      WAITING
WAITING  confirmed by another reviewer            OPEN, for its minutes
WAITING  `CONFIRM_WITHIN` has passed              LAPSED
OPEN     it let an action through                 OPEN, with one more use
OPEN     its minutes have passed                  LAPSED
WAITING  closed by a reviewer                     CLOSED
OPEN     closed by a reviewer                     CLOSED
LAPSED   anything                                 refused: `BreakGlassRefusedError`
CLOSED   anything                                 refused: `BreakGlassRefusedError`

Who counts as a reviewer here: one of the version's domain, or of the domain ``policies``, who is not revoked. What it
changes is an answer of the control plane (`templates.policies`): approvals, thresholds and ceilings stay what the
charter says, and nodes know nothing of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum, unique
from typing import Final

from templates.charter import Charter
from templates.names import TemplateRef
from templates.policies.policy_set import POLICIES_DOMAIN
from templates.reasons import AgentFactoryError, Reason
from templates.revocations import Revocations

MINUTES_DEFAULT: Final = 60
MINUTES_MAX: Final = 240
CONFIRM_WITHIN: Final = timedelta(hours=1)
REASON_CHARACTERS_MIN: Final = 10
REASON_CHARACTERS_MAX: Final = 1000
USES_MAX: Final = 100
_PREFIX: Final = "breakGlass/"


@unique
class GlassState(StrEnum):
    WAITING = "WAITING"
    OPEN = "OPEN"
    LAPSED = "LAPSED"
    CLOSED = "CLOSED"


class BreakGlassRefusedError(AgentFactoryError):
    """The person, the reason or the moment is not one that the table above lets through."""

    reason = Reason.BREAK_GLASS_REFUSED


class BreakGlassUnknownError(AgentFactoryError):
    """There is none of that name."""

    reason = Reason.BREAK_GLASS_UNKNOWN

    def __init__(self, name: str) -> None:
        super().__init__(f"expected the name of a broken glass, {_PREFIX}<number>, got {name[:80]!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One action that the policies had denied and that went through."""

    at: datetime
    action: str
    person: str
    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakGlass:
    """``number`` is 0 before it is stored. Times are aware, in whole seconds."""

    number: int
    ref: TemplateRef
    why: str
    minutes: int
    opened_by: str
    opened_at: datetime
    confirmed_by: str = ""
    confirmed_at: datetime | None = None
    closed_by: str = ""
    closed_at: datetime | None = None
    uses: tuple[Use, ...] = ()

    @property
    def name(self) -> str:
        return f"{_PREFIX}{self.number}"

    @property
    def expires(self) -> datetime:
        if self.confirmed_at is None:
            return self.opened_at + CONFIRM_WITHIN
        return self.confirmed_at + timedelta(minutes=self.minutes)

    def state(self, now: datetime) -> GlassState:
        if self.closed_at is not None:
            return GlassState.CLOSED
        if now >= self.expires:
            return GlassState.LAPSED
        return GlassState.WAITING if self.confirmed_at is None else GlassState.OPEN


def glass_number(name: str) -> int:
    """Read ``breakGlass/<number>``; raise `BreakGlassUnknownError`."""
    digits = name.removeprefix(_PREFIX)
    if digits == name or not digits.isascii() or not digits.isdigit() or len(digits) > 18:
        raise BreakGlassUnknownError(name)
    return int(digits)


def open_glass(
    ref: TemplateRef,
    *,
    by: str,
    why: str,
    minutes: int,
    charter: Charter,
    revocations: Revocations,
    now: datetime,
) -> BreakGlass:
    """Ask for it; ``minutes`` 0 stands for the default.

    Raises:
        BreakGlassRefusedError: no reviewer, no real reason, or too long.
    """
    _require_reviewer(by, ref, charter, revocations)
    text = " ".join(why.split())
    if not REASON_CHARACTERS_MIN <= len(text) <= REASON_CHARACTERS_MAX or not text.isprintable():
        raise BreakGlassRefusedError(
            f"expected a reason of {REASON_CHARACTERS_MIN} to {REASON_CHARACTERS_MAX} characters that people will read "
            f"later, got {len(text)}"
        )
    minutes = minutes or MINUTES_DEFAULT
    if not 0 < minutes <= MINUTES_MAX:
        raise BreakGlassRefusedError(f"expected at most {MINUTES_MAX} minutes, got {minutes}")
    return BreakGlass(
        number=0,
        ref=ref,
        why=text,
        minutes=minutes,
        opened_by=by,
        opened_at=now.replace(microsecond=0),
    )


def confirm(glass: BreakGlass, *, by: str, charter: Charter, revocations: Revocations, now: datetime) -> BreakGlass:
    """Let it begin; confirming again, by the same person, changes nothing.

    Raises:
        BreakGlassRefusedError: the same person, no reviewer, or not waiting.
    """
    if glass.state(now) is GlassState.OPEN and glass.confirmed_by == by:
        return glass
    if glass.state(now) is not GlassState.WAITING:
        raise BreakGlassRefusedError(f"expected {glass.name} to be WAITING, it is {glass.state(now)}")
    if by == glass.opened_by:
        raise BreakGlassRefusedError(f"expected a second person to confirm {glass.name}, got {by}, who opened it")
    _require_reviewer(by, glass.ref, charter, revocations)
    # Whoever opened it may have been revoked since: then there was never a first person.
    _require_reviewer(glass.opened_by, glass.ref, charter, revocations)
    return replace(glass, confirmed_by=by, confirmed_at=now.replace(microsecond=0))


def close(glass: BreakGlass, *, by: str, charter: Charter, revocations: Revocations, now: datetime) -> BreakGlass:
    """End it; closing again changes nothing.

    Raises:
        BreakGlassRefusedError: no reviewer, or it has lapsed.
    """
    if glass.state(now) is GlassState.CLOSED:
        return glass
    _require_reviewer(by, glass.ref, charter, revocations)
    if glass.state(now) is GlassState.LAPSED:
        raise BreakGlassRefusedError(f"expected {glass.name} to be WAITING or OPEN, it is LAPSED")
    return replace(glass, closed_by=by, closed_at=now.replace(microsecond=0))


def usable(
    glasses: Sequence[BreakGlass], ref: TemplateRef, *, charter: Charter, revocations: Revocations, now: datetime
) -> BreakGlass | None:
    """Return one that is open for ``ref``, and whose two persons are still reviewers."""
    for glass in glasses:
        persons = (glass.opened_by, glass.confirmed_by)
        if (
            glass.ref == ref
            and glass.state(now) is GlassState.OPEN
            and len(glass.uses) < USES_MAX
            and all(_is_reviewer(person, ref, charter, revocations) for person in persons)
        ):
            return glass
    return None


def used(glass: BreakGlass, *, action: str, person: str, policies: Sequence[str], now: datetime) -> BreakGlass:
    """Note what it let through."""
    use = Use(at=now.replace(microsecond=0), action=action, person=person, policies=tuple(policies))
    return replace(glass, uses=(*glass.uses, use))


def _is_reviewer(person: str, ref: TemplateRef, charter: Charter, revocations: Revocations) -> bool:
    domains = (charter.domains.get(name) for name in (ref.domain, POLICIES_DOMAIN))
    return person not in revocations.reviewers and any(person in each.reviewers for each in domains if each)


def _require_reviewer(person: str, ref: TemplateRef, charter: Charter, revocations: Revocations) -> None:
    if not _is_reviewer(person, ref, charter, revocations):
        raise BreakGlassRefusedError(
            f"expected a reviewer of {ref.domain} or {POLICIES_DOMAIN} in good standing, got {person}"
        )
