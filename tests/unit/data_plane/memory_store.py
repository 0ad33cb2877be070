"""Fakes of the node's stores; tests/contract runs the same promises against them and against the real adapters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from data_plane.agents.agent import Agent, AgentScope, NewAgent
from data_plane.agents.invocations import InvocationFilter, InvocationRecord
from data_plane.agents.refusals import AgentExistsError, AgentsExhaustedError, RequestIdReusedError
from data_plane.broker.answers import ErrorKind, HostRefusal
from data_plane.broker.kv_grant import KvDelete, KvEntry, KvList, KvPut, entry_bytes, require_expected, used_after_put
from templates.grants import KvGrant
from templates.names import TemplateName
from templates.reasons import AgentFactoryError


@dataclass
class _Space:
    entries: dict[str, KvEntry]
    expires_us: dict[str, int]
    version: int = 0

    @property
    def used_bytes(self) -> int:
        return sum(entry_bytes(key, entry.value) for key, entry in self.entries.items())


class MemoryAgents:
    def __init__(self, *, agents_max: int = 1_000, now_us: Callable[[], int] = lambda: 0) -> None:
        self._now_us = now_us
        self._agents_max = agents_max
        self._agents: dict[tuple[str, str], Agent] = {}
        self._requests: dict[tuple[str, str], tuple[str, Agent]] = {}
        self._spaces: dict[tuple[AgentScope, str], _Space] = {}

    async def create(self, wishes: Sequence[NewAgent]) -> Sequence[Agent | AgentFactoryError]:
        return [self._create(wish) for wish in wishes]

    def _create(self, wish: NewAgent) -> Agent | AgentFactoryError:
        agent = wish.agent
        earlier = self._requests.get((agent.tenant, wish.request_id)) if wish.request_id else None
        if earlier is not None:
            return earlier[1] if earlier[0] == wish.request_sha256 else RequestIdReusedError(wish.request_id)
        if len(self._agents) >= self._agents_max:
            return AgentsExhaustedError(self._agents_max)
        if (agent.tenant, agent.agent_id) in self._agents:
            return AgentExistsError(agent.agent_id)
        self._agents[agent.tenant, agent.agent_id] = agent
        if wish.request_id:
            self._requests[agent.tenant, wish.request_id] = (wish.request_sha256, agent)
        return agent

    async def get(self, tenant: str, agent_id: str) -> Agent | None:
        return self._agents.get((tenant, agent_id))

    async def list(self, tenant: str, *, template: TemplateName | None, after: str, count_max: int) -> Sequence[Agent]:
        found = [
            agent
            for (owner, agent_id), agent in sorted(self._agents.items())
            if owner == tenant and agent_id > after and template in {None, agent.template}
        ]
        return found[:count_max]

    async def delete(self, tenant: str, agent_id: str) -> bool:
        for scope, namespace in list(self._spaces):
            if (scope.tenant, scope.agent_id) == (tenant, agent_id):
                del self._spaces[scope, namespace]
        return self._agents.pop((tenant, agent_id), None) is not None

    async def count(self) -> int:
        return len(self._agents)

    def _space(self, scope: AgentScope, namespace: str) -> _Space:
        space = self._spaces.setdefault((scope, namespace), _Space({}, {}))
        for key in [key for key, expires_us in space.expires_us.items() if expires_us <= self._now_us()]:
            del space.entries[key], space.expires_us[key]
        return space

    async def kv_get(self, scope: AgentScope, namespace: str, key: str) -> KvEntry | None:
        return self._space(scope, namespace).entries.get(key)

    async def kv_put(self, scope: AgentScope, grant: KvGrant, request: KvPut) -> int:
        if scope.agent_id and (scope.tenant, scope.agent_id) not in self._agents:
            raise HostRefusal(ErrorKind.NOT_FOUND, "expected the state of an agent, which was deleted meanwhile")
        space = self._space(scope, grant.namespace)
        found = space.entries.get(request.key)
        require_expected(found, request.expected)
        used_after_put(request, found, used_bytes=space.used_bytes, grant=grant)
        space.version += 1
        space.entries[request.key] = KvEntry(request.value, space.version)
        space.expires_us.pop(request.key, None)
        if request.ttl_s is not None:
            space.expires_us[request.key] = self._now_us() + request.ttl_s * 1_000_000
        return space.version

    async def kv_delete(self, scope: AgentScope, namespace: str, request: KvDelete) -> None:
        space = self._space(scope, namespace)
        require_expected(space.entries.get(request.key), request.expected)
        if space.entries.pop(request.key, None) is not None:
            space.expires_us.pop(request.key, None)
            space.version += 1

    async def kv_list(self, scope: AgentScope, namespace: str, request: KvList) -> Sequence[str]:
        keys = sorted(self._space(scope, namespace).entries, key=str.encode)
        found = [key for key in keys if key.startswith(request.prefix) and key.encode() > request.after.encode()]
        return found[: request.count_max]

    async def kv_collect(self) -> bool:
        for scope, namespace in list(self._spaces):
            self._space(scope, namespace)
        return False


class MemoryInvocations:
    def __init__(self) -> None:
        self.records: dict[tuple[str, str], InvocationRecord] = {}

    def record(self, record: InvocationRecord) -> None:
        self.records[record.tenant, record.invocation_id] = record

    async def list(self, wanted: InvocationFilter) -> Sequence[InvocationRecord]:
        found = [
            replace(record, logs=())
            for (tenant, invocation_id), record in sorted(self.records.items(), reverse=True)
            if tenant == wanted.tenant
            and wanted.agent_id in {"", record.agent_id}
            and wanted.template in {"", record.template}
            and (not wanted.before or invocation_id < wanted.before)
        ]
        return found[: wanted.count_max]

    async def get(self, tenant: str, invocation_id: str) -> InvocationRecord | None:
        return self.records.get((tenant, invocation_id))
