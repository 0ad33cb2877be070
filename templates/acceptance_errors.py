"""Why a template may not run: one class, with its own reason, per rule of `acceptance`."""

from templates.names import TemplateRef
from templates.reasons import AgentFactoryError, Reason

TRUST_REASONS = frozenset(
    {
        Reason.APPROVAL_BY_AUTHOR,
        Reason.APPROVAL_BY_REVOKED,
        Reason.APPROVAL_EXPIRED,
        Reason.APPROVAL_INVALID,
        Reason.APPROVAL_MISMATCH,
        Reason.APPROVAL_MISSING,
        Reason.APPROVAL_ONE_PERSON,
        Reason.APPROVAL_STRANGER,
        Reason.APPROVAL_TOO_LONG,
        Reason.APPROVAL_UNDER_THRESHOLD,
        Reason.BELOW_FLOOR,
        Reason.CAPABILITIES_MISMATCH,
        Reason.CHARTER_INVALID,
        Reason.CODE_REVOKED,
        Reason.CODE_UNLISTED,
        Reason.DEVELOPMENT_MODE,
        Reason.DIGEST_MISMATCH,
        Reason.DOMAIN_UNKNOWN,
        Reason.GENERATION_CONFLICT,
        Reason.GENERATION_ROLLBACK,
        Reason.IMAGE_MISMATCH,
        Reason.KEY_ID_MISMATCH,
        Reason.KEY_REFUSED,
        Reason.LEASE_TOO_LONG,
        Reason.METADATA_EXPIRED,
        Reason.METADATA_INVALID,
        Reason.METADATA_MISMATCH,
        Reason.METADATA_MISSING,
        Reason.METADATA_ROLLBACK,
        Reason.METADATA_UNDER_THRESHOLD,
        Reason.NODE_REVOKED,
        Reason.PLAN_INVALID,
        Reason.SIGNATURE_INVALID,
        Reason.TARGET_MISMATCH,
        Reason.TARGET_MISSING,
        Reason.TEMPLATE_REVOKED,
        Reason.WRONG_ENVIRONMENT,
    }
)
"""What says that something signed, or its signature, cannot be believed."""


class AcceptanceError(AgentFactoryError):
    """A template may not run; ``template`` says which, ``reason`` why."""

    def __init__(self, message: str, *, template: TemplateRef) -> None:
        self.template = template
        super().__init__(f"{template}: {message}", metadata={"template": str(template)})


class UnreadableError(AcceptanceError):
    """The template's document or its approval was refused by its reader, whose reason this is."""

    def __init__(self, cause: AgentFactoryError, *, template: TemplateRef) -> None:
        super().__init__(cause.message, template=template)
        self.reason = cause.reason


class DigestMismatchError(AcceptanceError):
    """The bytes are not those that the plan or the approval names."""

    reason = Reason.DIGEST_MISMATCH


class DocumentMissingError(AcceptanceError):
    """The library does not have the template that the plan names."""

    reason = Reason.TARGET_MISSING


class DomainUnknownError(AcceptanceError):
    """The charter does not name the template's domain, so nobody can approve it."""

    reason = Reason.DOMAIN_UNKNOWN


class ApprovalMissingError(AcceptanceError):
    """There is no approval."""

    reason = Reason.APPROVAL_MISSING


class ApprovalMismatchError(AcceptanceError):
    """The approval is one of something else: another template, digest or author."""

    reason = Reason.APPROVAL_MISMATCH


class ApprovalEnvironmentError(AcceptanceError):
    """The approval was given for another environment."""

    reason = Reason.WRONG_ENVIRONMENT


class UnderThresholdError(AcceptanceError):
    """Too few reviewers signed."""

    reason = Reason.APPROVAL_UNDER_THRESHOLD


class AuthorApprovalError(UnderThresholdError):
    """The threshold would be reached if an author could approve their own change."""

    reason = Reason.APPROVAL_BY_AUTHOR


class StrangerSignedError(UnderThresholdError):
    """The threshold would be reached with signers who are not reviewers of this domain."""

    reason = Reason.APPROVAL_STRANGER


class OnePersonError(UnderThresholdError):
    """The threshold would be reached if several keys of one person counted as several persons."""

    reason = Reason.APPROVAL_ONE_PERSON


class ImageMismatchError(AcceptanceError):
    """The image is missing, or is not the code that the template pins."""

    reason = Reason.IMAGE_MISMATCH


class CapabilitiesMismatchError(AcceptanceError):
    """What the code can do here is not what was approved."""

    reason = Reason.CAPABILITIES_MISMATCH


class WithdrawnError(AcceptanceError):
    """A template that was in order once and may not run any more; the generation that names it may be believed."""


class RevokedReviewerError(WithdrawnError):
    """The threshold would be reached with a reviewer who has been revoked."""

    reason = Reason.APPROVAL_BY_REVOKED


class ApprovalExpiredError(WithdrawnError):
    """The approval has run out."""

    reason = Reason.APPROVAL_EXPIRED


class ApprovalTooLongError(WithdrawnError):
    """The approval runs longer than the charter allows."""

    reason = Reason.APPROVAL_TOO_LONG


class TemplateRevokedError(WithdrawnError):
    """The template's digest is revoked."""

    reason = Reason.TEMPLATE_REVOKED


class CodeRevokedError(WithdrawnError):
    """The template's source or module, or its image's module, is revoked."""

    reason = Reason.CODE_REVOKED


class BelowFloorError(WithdrawnError):
    """The version is older than the charter still allows."""

    reason = Reason.BELOW_FLOOR
