"""What the node asks of whatever keeps agents and their state. Everything that returned is durable."""

from collections.abc import Sequence
from typing import Protocol

from data_plane.agents.agent import Agent, AgentScope, NewAgent
from data_plane.agents.invocations import InvocationFilter, InvocationRecord
from data_plane.broker.kv_grant import KvDelete, KvEntry, KvList, KvPut
from templates.grants import KvGrant
from templates.names import TemplateName
from templates.reasons import AgentFactoryError


class AgentStore(Protocol):
    """Agents by (tenant, id)."""

    async def create(self, wishes: Sequence[NewAgent]) -> Sequence[Agent | AgentFactoryError]:
        """Create each by itself, in order; a repeated request gets the agent that its first one made.

        Refusals are values: AgentExistsError, RequestIdReusedError, AgentsExhaustedError.
        """
        ...

    async def get(self, tenant: str, agent_id: str) -> Agent | None: ...

    async def list(self, tenant: str, *, template: TemplateName | None, after: str, count_max: int) -> Sequence[Agent]:
        """Return agents in the order of their ids, those after ``after``."""
        ...

    async def delete(self, tenant: str, agent_id: str) -> bool:
        """Delete the agent and its state; say whether it was there."""
        ...

    async def count(self) -> int:
        """Count the agents of all tenants."""
        ...


class KvStore(Protocol):
    """Key-value state by scope and namespace. The decisions are those of `data_plane.broker.kv_grant`.

    An entry with a time to live is gone when it is over, by the store's own clock.
    """

    async def kv_get(self, scope: AgentScope, namespace: str, key: str) -> KvEntry | None: ...

    async def kv_put(self, scope: AgentScope, grant: KvGrant, request: KvPut) -> int:
        """Write and return the new version.

        Raises:
            HostRefusal: conflict, not_found, quota; not_found too when the scope's agent is gone.
        """
        ...

    async def kv_delete(self, scope: AgentScope, namespace: str, request: KvDelete) -> None:
        """Delete; a key that is not there is no error unless a version was expected.

        Raises:
            HostRefusal: conflict, not_found.
        """
        ...

    async def kv_list(self, scope: AgentScope, namespace: str, request: KvList) -> Sequence[str]:
        """Return at most ``request.count_max`` keys."""
        ...

    async def kv_collect(self) -> bool:
        """Free what expired entries take; True when there may be more."""
        ...


class InvocationLog(Protocol):
    """Recent invocations. Recording never waits; what was recorded survives a restart once it has been written."""

    def record(self, record: InvocationRecord) -> None: ...

    async def list(self, wanted: InvocationFilter) -> Sequence[InvocationRecord]:
        """Return matching records, newest first, without their log lines."""
        ...

    async def get(self, tenant: str, invocation_id: str) -> InvocationRecord | None: ...
