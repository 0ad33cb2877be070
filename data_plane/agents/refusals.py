"""What the agent service refuses: one error per reason, with what a program needs in its metadata."""

from collections.abc import Sequence

from service.status import UnavailableError
from templates.names import nearest
from templates.reasons import AgentFactoryError, Reason


class InvalidRequestError(AgentFactoryError):
    """A field of the request is missing or malformed."""

    reason = Reason.INVALID_REQUEST

    def __init__(self, *, field: str, expected: str, got: str) -> None:
        super().__init__(f"{field}: expected {expected}, got {got[:120]!r}", metadata={"field": field})


class UnknownTemplateError(AgentFactoryError):
    """No active template of this node has the name, or the caller's tenant may not know of it."""

    reason = Reason.UNKNOWN_TEMPLATE

    def __init__(self, template: str, *, known: Sequence[str]) -> None:
        near = nearest(template, known)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        super().__init__(
            f"expected an active template, got {template[:120]!r}{hint}",
            metadata={"template": template[:120], "nearest": ", ".join(near)},
        )


class UnknownAgentError(AgentFactoryError):
    reason = Reason.UNKNOWN_AGENT

    def __init__(self, name: str) -> None:
        super().__init__(f"expected an agent of your tenant, got {name!r}", metadata={"agent": name})


class UnknownInvocationError(AgentFactoryError):
    reason = Reason.UNKNOWN_INVOCATION

    def __init__(self, invocation_id: str) -> None:
        super().__init__(
            f"expected a recent invocation of your tenant, got {invocation_id[:80]!r}",
            metadata={"invocation": invocation_id[:80]},
        )


class AgentExistsError(AgentFactoryError):
    reason = Reason.AGENT_EXISTS

    def __init__(self, agent_id: str) -> None:
        super().__init__(f"expected an agent_id that is not taken, got {agent_id!r}", metadata={"agent_id": agent_id})


class AgentsExhaustedError(AgentFactoryError):
    reason = Reason.AGENTS_EXHAUSTED

    def __init__(self, agents_max: int) -> None:
        super().__init__(f"expected at most {agents_max} agents on this node", metadata={"limit": str(agents_max)})


class RequestIdReusedError(AgentFactoryError):
    """The request id belongs to an earlier, different request."""

    reason = Reason.REQUEST_ID_REUSED

    def __init__(self, request_id: str) -> None:
        super().__init__(
            f"expected the request that {request_id!r} was first used for, got another",
            metadata={"request_id": request_id},
        )


class WrongNodeError(AgentFactoryError):
    """The agent lives elsewhere: ``node`` in the metadata says where."""

    reason = Reason.WRONG_NODE

    def __init__(self, *, here: str, home: str) -> None:
        super().__init__(f"expected an agent of node {here!r}, got one of {home!r}", metadata={"node": home})


class InputError(AgentFactoryError):
    """The input is refused before anything runs."""

    reason = Reason.INPUT


class NotServingError(UnavailableError):
    """The node has no generation that it may serve."""

    reason = Reason.NODE_NOT_SERVING


class DrainingError(UnavailableError):
    reason = Reason.SERVER_DRAINING


class LeaseExpiredError(AgentFactoryError):
    """The template's ``on_lease_expiry``, or the charter's staleness cap, forbids this now."""

    reason = Reason.LEASE_EXPIRED


class ConcurrencyExhaustedError(UnavailableError):
    """The node runs as many invocations as it can carry."""

    reason = Reason.CONCURRENCY_EXHAUSTED


class TenantInFlightExhaustedError(UnavailableError):
    """The tenant has as many invocations in flight as it may."""

    reason = Reason.TENANT_IN_FLIGHT_EXHAUSTED

    def __init__(self, tenant: str, most: int, *, retry_s: float) -> None:
        super().__init__(
            f"expected at most {most} invocations of tenant {tenant} in flight on this node",
            retry_s=retry_s,
            metadata={"tenant": tenant, "quota": "in_flight", "limit": str(most)},
        )


class TenantMemoryExhaustedError(UnavailableError):
    """The memory limits of what the tenant has in flight add up to its quota."""

    reason = Reason.TENANT_MEMORY_EXHAUSTED

    def __init__(self, tenant: str, most: int, *, retry_s: float) -> None:
        super().__init__(
            f"expected memory limits of at most {most} bytes for what tenant {tenant} has in flight on this node",
            retry_s=retry_s,
            metadata={"tenant": tenant, "quota": "memory_bytes", "limit": str(most)},
        )


class TenantWorkersExhaustedError(UnavailableError):
    """The tenant may have no worker on this node."""

    reason = Reason.TENANT_WORKERS_EXHAUSTED

    def __init__(self, tenant: str, most: int, *, retry_s: float) -> None:
        super().__init__(
            f"expected at most {most} workers of tenant {tenant} on this node",
            retry_s=retry_s,
            metadata={"tenant": tenant, "quota": "workers", "limit": str(most)},
        )


class QuarantinedError(UnavailableError):
    """Workers keep dying under this template."""

    reason = Reason.TEMPLATE_QUARANTINED


class WorkerUnavailableError(UnavailableError):
    """No worker process could be had in time."""

    reason = Reason.WORKER_UNAVAILABLE


class IsolationTooWeakError(WorkerUnavailableError):
    """This host does not isolate workers as far as the node's settings demand."""

    reason = Reason.ISOLATION_TOO_WEAK
