"""The stable reason of every error that leaves a process. One concept, one code; docs/errors.md explains each."""

from enum import StrEnum, unique


@unique
class Reason(StrEnum):
    """Sent as ``google.rpc.ErrorInfo.reason`` and in Nacks; never renamed, never reused."""

    CALLS_EXHAUSTED = "CALLS_EXHAUSTED"
    CANCELLED = "CANCELLED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    EXPOSED_KEY_FILE = "EXPOSED_KEY_FILE"
    GENERATION_ROLLBACK = "GENERATION_ROLLBACK"
    INTERNAL = "INTERNAL"
    INVALID_DOCUMENT = "INVALID_DOCUMENT"
    INVALID_IDENTITY = "INVALID_IDENTITY"
    INVALID_KEY_FILE = "INVALID_KEY_FILE"
    INVALID_LOCAL_CA = "INVALID_LOCAL_CA"
    INVALID_NAME = "INVALID_NAME"
    INVALID_SETTINGS = "INVALID_SETTINGS"
    INVALID_TEMPLATE = "INVALID_TEMPLATE"
    INVALID_TLS_FILES = "INVALID_TLS_FILES"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    SERVER_DRAINING = "SERVER_DRAINING"
    TLS_REQUIRED = "TLS_REQUIRED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    UNAVAILABLE = "UNAVAILABLE"
    WRONG_PASSPHRASE = "WRONG_PASSPHRASE"


class AgentFactoryError(Exception):
    """Base of every expected error: a stable ``reason`` and a message written for the peer, "expected X, got Y".

    ``metadata`` travels as ``ErrorInfo.metadata``: the place in the input, the limit, the nearest names.
    """

    reason: Reason = Reason.INTERNAL

    def __init__(self, message: str, *, metadata: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = metadata or {}
