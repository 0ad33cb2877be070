"""What an error means to the person at the terminal: lines to print, and the exit status."""

from typing import TYPE_CHECKING, Final

from client.agentctl.exit_codes import ExitCode
from templates.problems import InvalidDocumentError
from templates.reasons import AgentFactoryError, Reason

if TYPE_CHECKING:
    import grpc

_TRUST_PREFIXES: Final = (
    "APPROVAL_",
    "METADATA_",
    "SIGNATURE_",
    "KEY_",
    "CHARTER_",
    "LEASE_",
    "BUNDLE_",
    "TARGET_",
    "RECEIPT_",
)
_TRUST_REASONS: Final = frozenset(
    {
        Reason.AUDIT_FORKED,
        Reason.AUDIT_INVALID,
        Reason.BELOW_FLOOR,
        Reason.CAPABILITIES_MISMATCH,
        Reason.CODE_REVOKED,
        Reason.DEVELOPMENT_MODE,
        Reason.GENERATION_CONFLICT,
        Reason.GENERATION_ROLLBACK,
        Reason.RECORDING_DAMAGED,
        Reason.REVIEW_MISMATCH,
        Reason.TEMPLATE_REVOKED,
        Reason.TRUST_UNREADABLE,
        Reason.WRONG_ENVIRONMENT,
    }
)
_GUEST_FAILURES: Final = frozenset(
    {
        Reason.EGRESS,
        Reason.FUEL,
        Reason.GUEST_ERROR,
        Reason.HOST_CALLS,
        Reason.MEMORY,
        Reason.OUTPUT,
        Reason.POLICY,
        Reason.TRAP,
    }
)
"""The agent ran and failed, as in `agentctl template run`; sending the same input again would not help."""
_OF_NO_INVOCATION: Final = frozenset({Reason.UNKNOWN_RECORDING, Reason.UNKNOWN_INVOCATION})
"""Refusals that name an invocation of which there is nothing to show."""
_USAGE_REASONS: Final = frozenset({Reason.INVALID_INSTALLATION, Reason.INVALID_PROFILE, Reason.LOCAL_GRANT_INVALID})
_VALIDATION_REASONS: Final = frozenset({Reason.INVALID_TLS_FILES, Reason.MESSAGE_TOO_LARGE})
"""What was given cannot be used; their statuses speak of a server's state, and trying again would not help."""


def describe(error: AgentFactoryError) -> list[str]:
    """Return the lines that explain ``error``: its stable code first, then every problem and the server's hints."""
    from client.documents import InvalidFileError
    from service.status import RemoteError

    reason = error.reason_text if isinstance(error, RemoteError) else str(error.reason)
    lines = [f"{reason}: {error.message}"]
    if isinstance(error, InvalidDocumentError) and len(error.problems) > 1:
        file = f"{error.file}:" if isinstance(error, InvalidFileError) else ""
        lines = [f"{reason}: {len(error.problems)} problems", *(f"  {file}{problem}" for problem in error.problems)]
    if isinstance(error, RemoteError):
        lines += [f"  {one.field}: {one.code}: {one.description}" for one in error.violations]
        invocation = error.metadata.get("invocation")
        if invocation and error.reason_text not in _OF_NO_INVOCATION:
            lines.append(f"  receipt and log: agentctl invocation show {invocation}")
    return lines


def exit_code_of(error: AgentFactoryError) -> ExitCode:
    """Return the exit status for ``error``, from its gRPC status and its kind."""
    from service.status import STATUS, RemoteError

    code = error.code if isinstance(error, RemoteError) else STATUS[error.reason]
    if is_about_trust(error):
        return ExitCode.TRUST
    if error.reason in _GUEST_FAILURES:
        return ExitCode.FINDINGS
    if error.reason in _USAGE_REASONS:
        return ExitCode.USAGE
    if error.reason in _VALIDATION_REASONS:
        return ExitCode.VALIDATION
    return _by_status(code)


def is_about_trust(error: AgentFactoryError) -> bool:
    """Whether ``error`` says that something signed or sealed, or its signature, cannot be believed."""
    return error.reason in _TRUST_REASONS or error.reason.startswith(_TRUST_PREFIXES)


def _by_status(code: "grpc.StatusCode") -> ExitCode:
    import grpc

    return {
        grpc.StatusCode.INVALID_ARGUMENT: ExitCode.VALIDATION,
        grpc.StatusCode.OUT_OF_RANGE: ExitCode.VALIDATION,
        grpc.StatusCode.NOT_FOUND: ExitCode.NOT_FOUND,
        grpc.StatusCode.PERMISSION_DENIED: ExitCode.NOT_ALLOWED,
        grpc.StatusCode.UNAUTHENTICATED: ExitCode.NOT_ALLOWED,
        grpc.StatusCode.ALREADY_EXISTS: ExitCode.CONFLICT,
        grpc.StatusCode.ABORTED: ExitCode.CONFLICT,
        grpc.StatusCode.FAILED_PRECONDITION: ExitCode.CONFLICT,
    }.get(code, ExitCode.UNAVAILABLE)
