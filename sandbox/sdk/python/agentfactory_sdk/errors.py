"""Why the node refused or could not do what the agent asked. Each is an ordinary exception that an agent may catch."""


class HostError(Exception):
    """Base of every refusal; ``kind`` is the stable word, the message is for people."""

    kind = "failed"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class DeniedError(HostError):
    """The template was not granted this interface, or the grant does not reach that far."""

    kind = "denied"


class ConflictError(HostError):
    """The stored version is not the ``expected`` one: read again and decide again."""

    kind = "conflict"


class QuotaError(HostError):
    """The grant's amount is used up."""

    kind = "quota"


class NotFoundError(HostError):
    """The template or key does not exist, or is not for this agent to see."""

    kind = "not_found"


class InvalidError(HostError):
    """The argument is not one that this call takes."""

    kind = "invalid"


class FailedError(HostError):
    """The call was carried out and failed: another agent's error, a store that did not answer."""

    kind = "failed"


class BudgetError(HostError):
    """What remains of this invocation's fuel, time or calls does not suffice."""

    kind = "budget"


_BY_KIND: dict[str, type[HostError]] = {
    error.kind: error
    for error in (DeniedError, ConflictError, QuotaError, NotFoundError, InvalidError, FailedError, BudgetError)
}


def host_error(kind: str, message: str) -> HostError:
    """The exception for an error ``kind`` as the node words it; an unknown kind is ``FailedError``."""
    return _BY_KIND.get(kind, FailedError)(message)
