"""Why an offered generation is not believed: one class, with its own reason, per rule of `trusted_set`."""

from datetime import datetime

from templates.reasons import AgentFactoryError, Reason
from templates.signed_document import time_text


class TrustError(AgentFactoryError):
    """A rule of the workflow refused; ``role`` is the TUF role, or empty."""

    def __init__(self, message: str, *, role: str = "", metadata: dict[str, str] | None = None) -> None:
        facts = {**(metadata or {}), **({"role": role} if role else {})}
        super().__init__(f"{role}: {message}" if role else message, metadata=facts)
        self.role = role


class MetadataInvalidError(TrustError):
    """Bytes are not metadata of this role: not strict JSON, another type, another shape."""

    reason = Reason.METADATA_INVALID


class MetadataMissingError(TrustError):
    """Something that the signed metadata requires does not exist."""

    reason = Reason.METADATA_MISSING


class MetadataMismatchError(TrustError):
    """A file is not the one that the metadata above it names: version, length or hash differ."""

    reason = Reason.METADATA_MISMATCH


class MetadataSignatureError(TrustError):
    """Too few keys of the role signed."""

    reason = Reason.METADATA_UNDER_THRESHOLD

    def __init__(self, *, role: str, threshold: int, verified: int) -> None:
        super().__init__(f"expected valid signatures by {threshold} keys of the role, got {verified}", role=role)


class MetadataRollbackError(TrustError):
    """A role is older than one that was believed before."""

    reason = Reason.METADATA_ROLLBACK

    def __init__(self, *, role: str, trusted: int, offered: int) -> None:
        super().__init__(f"expected version {trusted} or newer, got {offered}", role=role)


class GenerationRollbackError(TrustError):
    """The offered generation is older than the one already trusted."""

    reason = Reason.GENERATION_ROLLBACK

    def __init__(self, *, trusted: int, offered: int) -> None:
        super().__init__(f"expected generation {trusted} or newer, got {offered}", role="snapshot")


class GenerationConflictError(TrustError):
    """Two different states carry the same generation number: somebody shows different nodes different things."""

    reason = Reason.GENERATION_CONFLICT

    def __init__(self, *, generation: int, trusted: str, offered: str) -> None:
        super().__init__(f"expected generation {generation} to be snapshot {trusted}, got {offered}", role="snapshot")


class MetadataExpiredError(TrustError):
    """A role has run out."""

    reason = Reason.METADATA_EXPIRED

    def __init__(self, *, role: str, expires: datetime, now: datetime) -> None:
        super().__init__(f"expected validity beyond {time_text(now)}, got {time_text(expires)}", role=role)


class WrongEnvironmentError(TrustError):
    """Root, charter or plan belong to another environment than this installation."""

    reason = Reason.WRONG_ENVIRONMENT

    def __init__(self, *, role: str, expected: str, got: str) -> None:
        super().__init__(f"expected environment {expected!r}, got {got!r}", role=role)


class DevelopmentModeError(TrustError):
    """A node in production mode was offered a development root or charter."""

    reason = Reason.DEVELOPMENT_MODE


class LeaseTooLongError(TrustError):
    """The lease runs longer than the charter allows."""

    reason = Reason.LEASE_TOO_LONG

    def __init__(self, *, most_s: int, got_s: int) -> None:
        super().__init__(f"expected a lease of at most {most_s} s, got {got_s} s", role="timestamp")


class ClockBehindError(TrustError):
    """This machine's clock is behind what was signed: how stale a generation is cannot be told."""

    reason = Reason.CLOCK_BEHIND

    def __init__(self, *, signed_at: datetime, now: datetime) -> None:
        super().__init__(f"expected a clock that has reached {time_text(signed_at)}, got {time_text(now)}")


class TargetMissingError(TrustError):
    """A document that the generation needs is not in the bundle, or not listed by its role."""

    reason = Reason.TARGET_MISSING


class TargetMismatchError(TrustError):
    """A document is not the one that its role lists: length or hash differ."""

    reason = Reason.TARGET_MISMATCH


class CodeUnlistedError(TrustError):
    """An accepted template needs code that its library does not list with this length."""

    reason = Reason.CODE_UNLISTED


class StateInvalidError(TrustError):
    """What this node stored of its own beliefs cannot be read."""

    reason = Reason.STATE_INVALID
