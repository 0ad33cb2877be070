"""The one table from a reason to a gRPC status, the way out (`to_status`) and the way back (`from_rpc_error`)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum, unique
from types import MappingProxyType
from typing import Final

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # it ships no stubs

from templates.problems import InvalidDocumentError
from templates.reasons import AgentFactoryError, Reason

ERROR_DOMAIN: Final = "agentfactory"

STATUS: Final[Mapping[Reason, grpc.StatusCode]] = MappingProxyType(
    {
        Reason.ADDRESS_BLOCKED: grpc.StatusCode.PERMISSION_DENIED,
        Reason.AGENTS_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.AGENTS_NOT_CREATED: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.AGENT_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
        Reason.APPROVAL_BY_AUTHOR: grpc.StatusCode.PERMISSION_DENIED,
        Reason.APPROVAL_BY_REVOKED: grpc.StatusCode.PERMISSION_DENIED,
        Reason.APPROVAL_EXPIRED: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.APPROVAL_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.APPROVAL_MISMATCH: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.APPROVAL_MISSING: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.APPROVAL_ONE_PERSON: grpc.StatusCode.PERMISSION_DENIED,
        Reason.APPROVAL_STRANGER: grpc.StatusCode.PERMISSION_DENIED,
        Reason.APPROVAL_TOO_LONG: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.APPROVAL_UNDER_THRESHOLD: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.AUDIT_FORKED: grpc.StatusCode.DATA_LOSS,
        Reason.AUDIT_INVALID: grpc.StatusCode.DATA_LOSS,
        Reason.AUDIT_UNKNOWN: grpc.StatusCode.NOT_FOUND,
        Reason.AUTHENTICATION_BACKED_OFF: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.BELOW_FLOOR: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.BLOB_DAMAGED: grpc.StatusCode.DATA_LOSS,
        Reason.BLOB_MISMATCH: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.BLOB_MISSING: grpc.StatusCode.NOT_FOUND,
        Reason.BLOB_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
        Reason.BREAK_GLASS_REFUSED: grpc.StatusCode.PERMISSION_DENIED,
        Reason.BREAK_GLASS_UNKNOWN: grpc.StatusCode.NOT_FOUND,
        Reason.BUNDLE_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.CALLS_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.CANCELLED: grpc.StatusCode.CANCELLED,
        Reason.CAPABILITIES_MISMATCH: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.CHANGE_CLOSED: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.CHANGE_STATE: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.CHANGE_UNKNOWN: grpc.StatusCode.NOT_FOUND,
        Reason.CHARTER_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.CLOCK_BEHIND: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.CODE_FILE_MISSING: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.CODE_MISSING: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.CODE_REFUSED: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.CODE_REVOKED: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.CODE_UNLISTED: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.COMMENTS_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.COMPILED_CODE: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.COMPILER_CRASH: grpc.StatusCode.ABORTED,
        Reason.COMPILER_LIMIT: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.CONCURRENCY_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.CONFIG_MISMATCH: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.CRASH: grpc.StatusCode.UNAVAILABLE,
        Reason.DEADLINE: grpc.StatusCode.DEADLINE_EXCEEDED,
        Reason.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
        Reason.DEMO_FAILED: grpc.StatusCode.INTERNAL,
        Reason.DEVELOPMENT_MODE: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.DIGEST_MISMATCH: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.DOCUMENT_TOO_DEEP: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.DOCUMENT_TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.DOMAIN_UNKNOWN: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.DRY_RUN_FAILED: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.DUPLICATE_KEY: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.DUPLICATE_TEMPLATE: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.EGRESS: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.ETAG_MISMATCH: grpc.StatusCode.ABORTED,
        Reason.EXAMPLE_MISMATCH: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.EXPOSED_KEY_FILE: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.FORBIDDEN_IMPORT: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.FRAME_REFUSED: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.FUEL: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.GENERATION_CONFLICT: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.GENERATION_ROLLBACK: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.GENERATION_UNKNOWN: grpc.StatusCode.NOT_FOUND,
        Reason.GUEST_ERROR: grpc.StatusCode.UNKNOWN,
        Reason.HOST_CALLS: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.IDENTITY_REVOKED: grpc.StatusCode.UNAUTHENTICATED,
        Reason.IMAGE_MISMATCH: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.IMAGE_UNKNOWN: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.INHERITANCE_CYCLE: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.INHERITANCE_DEPTH: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.INPUT: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.INSTALLATION_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
        Reason.INTERNAL: grpc.StatusCode.INTERNAL,
        Reason.INVALID_DOCUMENT: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.INVALID_ENCODING: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.INVALID_IDENTITY: grpc.StatusCode.UNAUTHENTICATED,
        Reason.INVALID_INSTALLATION: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.INVALID_JSON: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.INVALID_KEY_FILE: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.INVALID_LOCAL_CA: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.INVALID_NAME: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.INVALID_NUMBER: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.INVALID_PROFILE: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.INVALID_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.INVALID_ROLES: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.INVALID_SCHEMA: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.INVALID_SETTINGS: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.INVALID_TEMPLATE: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.INVALID_TLS_FILES: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.INVALID_VALUE: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.ISOLATION_TOO_WEAK: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.ISSUER_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
        Reason.KEY_ID_MISMATCH: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.KEY_REFUSED: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.LEASE_EXPIRED: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.LEASE_TOO_LONG: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.BUILD_FAILED: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.FOLDER_TAKEN: grpc.StatusCode.ALREADY_EXISTS,
        Reason.TOOLCHAIN_MISSING: grpc.StatusCode.UNAVAILABLE,
        Reason.VENDORING_FAILED: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.LOCAL_GRANT_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.LOCAL_RUN_IMPOSSIBLE: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.MALFORMED_MESSAGE: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.MEMORY: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.MESSAGE_TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.METADATA_EXPIRED: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.METADATA_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.METADATA_MISMATCH: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.METADATA_MISSING: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.METADATA_ROLLBACK: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.METADATA_UNDER_THRESHOLD: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.MISSING_FIELD: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.MISSING_PARENT: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.MODULE_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.MODULE_MEMORY: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.MODULE_MISMATCH: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.MODULE_REFUSED: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.MODULE_SIZE: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.NODE_NOT_SERVING: grpc.StatusCode.UNAVAILABLE,
        Reason.NODE_REVOKED: grpc.StatusCode.PERMISSION_DENIED,
        Reason.NOT_CANONICAL: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.NOT_WASM: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.OUTPUT: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
        Reason.PLAN_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.POLICY: grpc.StatusCode.PERMISSION_DENIED,
        Reason.POLICY_DENIED: grpc.StatusCode.PERMISSION_DENIED,
        Reason.POLICY_FAILED: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.POLICY_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.POLICY_NAME: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.POLICY_SYNTAX: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.POLICY_TYPE: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.PORT_TAKEN: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.PROCESS_FAILED: grpc.StatusCode.UNAVAILABLE,
        Reason.RATE_LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.RECEIPT_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.RECEIPT_MISMATCH: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.RECEIPT_UNTRUSTED: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.RECORDING_DAMAGED: grpc.StatusCode.DATA_LOSS,
        Reason.RECORDING_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.RECORDING_NOT_ALLOWED: grpc.StatusCode.PERMISSION_DENIED,
        Reason.RECORDING_TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.REQUEST_ID_REUSED: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.REVIEW_MISMATCH: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.REVOKED: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.ROLLBACK_REFUSED: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.SCHEMA_VIOLATION: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.SECURE_MODE: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.SERVER_DRAINING: grpc.StatusCode.UNAVAILABLE,
        Reason.SIGNATURE_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.SOURCE_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.STATE_INVALID: grpc.StatusCode.DATA_LOSS,
        Reason.STATE_LOCKED: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.STATE_UNUSABLE: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.STORE_DAMAGED: grpc.StatusCode.DATA_LOSS,
        Reason.STORE_FAILED: grpc.StatusCode.UNAVAILABLE,
        Reason.STREAM_TOO_SLOW: grpc.StatusCode.DEADLINE_EXCEEDED,
        Reason.SUBMISSION_TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.TARGET_MISMATCH: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.TARGET_MISSING: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.TEMPLATE_QUARANTINED: grpc.StatusCode.UNAVAILABLE,
        Reason.TEMPLATE_REVOKED: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.TEMPLATE_UNKNOWN: grpc.StatusCode.NOT_FOUND,
        Reason.TENANT_IN_FLIGHT_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.TENANT_MEMORY_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.TENANT_WORKERS_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.TLS_REQUIRED: grpc.StatusCode.UNAUTHENTICATED,
        Reason.TOKEN_REFUSED: grpc.StatusCode.UNAUTHENTICATED,
        Reason.TRAP: grpc.StatusCode.UNKNOWN,
        Reason.TRUST_UNREADABLE: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
        Reason.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
        Reason.UNIMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
        Reason.UNKNOWN_AGENT: grpc.StatusCode.NOT_FOUND,
        Reason.UNKNOWN_FIELD: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.UNKNOWN_INVOCATION: grpc.StatusCode.NOT_FOUND,
        Reason.UNKNOWN_RECORDING: grpc.StatusCode.NOT_FOUND,
        Reason.UNKNOWN_TEMPLATE: grpc.StatusCode.NOT_FOUND,
        Reason.VERSION_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
        Reason.WIDENED_GRANT: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.WIDENED_LIMIT: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.WORKER_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
        Reason.WRONG_ENVIRONMENT: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.WRONG_NODE: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.WRONG_PASSPHRASE: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.WRONG_TYPE: grpc.StatusCode.INVALID_ARGUMENT,
    }
)


@unique
class _Size(IntEnum):
    """gRPC refuses metadata beyond 8 KiB: the message (thrice as long if percent-encoded) and the status fit."""

    MESSAGE_BYTES = 1024
    VALUE_BYTES = 256
    METADATA_ENTRIES = 8
    VIOLATION_BYTES = 300
    STATUS_BYTES = 3584


DETAILS_KEY: Final = "grpc-status-details-bin"

# What the transport itself says, without our ErrorInfo.
_TRANSPORT: Final = MappingProxyType(
    {
        grpc.StatusCode.CANCELLED: Reason.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED: Reason.DEADLINE_EXCEEDED,
        grpc.StatusCode.PERMISSION_DENIED: Reason.PERMISSION_DENIED,
        grpc.StatusCode.RESOURCE_EXHAUSTED: Reason.MESSAGE_TOO_LARGE,
        grpc.StatusCode.UNAUTHENTICATED: Reason.UNAUTHENTICATED,
        grpc.StatusCode.UNAVAILABLE: Reason.UNAVAILABLE,
        grpc.StatusCode.UNIMPLEMENTED: Reason.UNIMPLEMENTED,
    }
)


class PermissionDeniedError(AgentFactoryError):
    """The peer is known, and may not do this."""

    reason = Reason.PERMISSION_DENIED


class UnavailableError(AgentFactoryError):
    """Not now; the same call may succeed after ``retry_s``, which travels as RetryInfo."""

    reason = Reason.UNAVAILABLE

    def __init__(self, message: str, *, retry_s: float = 1.0, metadata: dict[str, str] | None = None) -> None:
        super().__init__(message, metadata=metadata)
        self.retry_s = retry_s


class ExhaustedError(UnavailableError):
    """Too many calls at once; the caller backs off for ``retry_s``."""

    reason = Reason.CALLS_EXHAUSTED


class DetailedError(AgentFactoryError):
    """Another error, with messages of a service's own that travel in the details of its status."""

    def __init__(self, error: AgentFactoryError, *details: Message) -> None:
        self.reason = error.reason
        self.details = details
        super().__init__(error.message, metadata=error.metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """One thing wrong with a request: where (a JSON pointer or field path), what, and its stable code."""

    field: str
    description: str
    code: str = ""


class RemoteError(AgentFactoryError):
    """What a server said: ``reason``, ``message`` and ``metadata`` as it sent them.

    ``details`` are messages of the service's own, packed, such as the receipt of a failed invocation.

    ``reason`` is INTERNAL when this version does not know the server's; ``reason_text`` is what was sent.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: Reason,
        code: grpc.StatusCode,
        reason_text: str = "",
        metadata: dict[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_s: float | None = None,
        details: Sequence[Packed] = (),
    ) -> None:
        super().__init__(message, metadata=metadata)
        self.reason = reason
        self.code = code
        self.details = tuple(details)
        self.reason_text = reason_text or str(reason)
        self.violations = tuple(violations)
        self.retry_s = retry_s


def code_of(reason: Reason) -> grpc.StatusCode:
    """Return the gRPC status of ``reason``; INTERNAL where the table has no line, which test_tidy does not let pass."""
    return STATUS.get(reason, grpc.StatusCode.INTERNAL)


def to_status(error: AgentFactoryError) -> status_pb2.Status:
    """Return what the peer gets: code, message, ErrorInfo; RetryInfo or BadRequest where there is something to say.

    RetryInfo comes from `UnavailableError`, BadRequest from the problems of a refused document. Everything is cut to
    what fits into gRPC metadata; the count of problems stays in ``ErrorInfo.metadata``.
    """
    reason_text = error.reason_text if isinstance(error, RemoteError) else str(error.reason)
    status = status_pb2.Status(code=code_of(error.reason).value[0], message=_cut(error.message, _Size.MESSAGE_BYTES))
    metadata = {
        key[:64]: _cut(value, _Size.VALUE_BYTES)
        for key, value in list(error.metadata.items())[: _Size.METADATA_ENTRIES]
    }
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason_text, domain=ERROR_DOMAIN, metadata=metadata))
    retry_s = error.retry_s if isinstance(error, UnavailableError | RemoteError) else None
    if retry_s is not None:
        info = error_details_pb2.RetryInfo()
        info.retry_delay.FromTimedelta(timedelta(seconds=retry_s))
        status.details.add().Pack(info)
    if isinstance(error, DetailedError):
        for detail in error.details:
            status.details.add().Pack(detail)
    if violations := _violations_of(error):
        request = error_details_pb2.BadRequest()
        room = _Size.STATUS_BYTES - status.ByteSize()
        for violation in violations:
            request.field_violations.add(
                field=_cut(violation.field, _Size.VIOLATION_BYTES),
                description=_cut(violation.description, _Size.VIOLATION_BYTES),
                reason=violation.code,
            )
            if request.ByteSize() > room:
                del request.field_violations[-1]
                break
        if request.field_violations:
            status.details.add().Pack(request)
    return status


def trailing_metadata(status: status_pb2.Status) -> tuple[tuple[str, bytes], ...]:
    """Return the metadata that carries ``status`` beside the plain code and message."""
    return ((DETAILS_KEY, status.SerializeToString()),)


def from_rpc_error(error: grpc.RpcError) -> RemoteError:
    """Return the error that the server meant; without its details, what the transport says."""
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return RemoteError(
            "expected an answer, got a broken call", reason=Reason.INTERNAL, code=grpc.StatusCode.UNKNOWN
        )
    code = error.code()
    message = error.details() or code.name
    status = _sent_status(error.trailing_metadata() or ())
    info, retry_s, violations = error_details_pb2.ErrorInfo(), None, list[FieldViolation]()
    others = list[Packed]()
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_s = retry.retry_delay.ToTimedelta().total_seconds()
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            request = error_details_pb2.BadRequest()
            detail.Unpack(request)
            violations += (
                FieldViolation(field=each.field, description=each.description, code=each.reason)
                for each in request.field_violations
            )
        else:
            others.append(detail)
    if info.domain != ERROR_DOMAIN:
        return RemoteError(message, reason=_TRANSPORT.get(code, Reason.INTERNAL), code=code, retry_s=retry_s)
    return RemoteError(
        status.message or message,
        reason=Reason(info.reason) if info.reason in Reason.__members__ else Reason.INTERNAL,
        code=code,
        reason_text=info.reason,
        metadata=dict(info.metadata),
        violations=violations,
        retry_s=retry_s,
        details=others,
    )


def _violations_of(error: AgentFactoryError) -> Sequence[FieldViolation]:
    match error:
        case InvalidDocumentError():
            return [
                FieldViolation(
                    field=problem.pointer,
                    description=f"line {problem.line}, column {problem.column}: {problem.message}",
                    code=str(problem.code),
                )
                for problem in error.problems
            ]
        case RemoteError():
            return error.violations
        case _:
            return ()


def _sent_status(metadata: Iterable[tuple[str, str | bytes]]) -> status_pb2.Status:
    for key, value in metadata:
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break  # a peer that sends garbage is a peer without details
    return status_pb2.Status()


def _cut(text: str, bytes_max: int) -> str:
    """Cut ``text`` to ``bytes_max`` of UTF-8; a lone surrogate becomes a question mark, since protobuf refuses it."""
    data = text.encode("utf-8", "replace")
    if len(data) > bytes_max:
        return data[: bytes_max - 3].decode("utf-8", "ignore") + "…"
    return data.decode("utf-8")
