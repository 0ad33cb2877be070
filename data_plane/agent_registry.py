"""Agents of this node: created against the active template, kept durably, found without touching the disk.

Agents whose record was used lately stay in memory, with their configuration merged for the template's active version:
the invoke path reads neither SQLite nor JSON. This process alone writes the store, so the memory is never stale.
"""

import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from data_plane.activation.generation import ActiveTemplate
from data_plane.agents.agent import (
    CONFIG_BYTES_MAX,
    Agent,
    AgentName,
    NewAgent,
    merged_config,
    request_digest,
    require_agent_id,
    require_object,
    require_request_id,
)
from data_plane.agents.json_text import parse_json
from data_plane.agents.ports import AgentStore
from data_plane.agents.refusals import InvalidRequestError, UnknownAgentError, WrongNodeError
from data_plane.invoker import config_digest
from templates.canonical import JsonObject, canonical_bytes
from templates.names import TemplateName
from templates.reasons import AgentFactoryError, Reason
from templates.schemas import Violation

REMEMBERED_MAX: Final = 20_000


class ConfigMismatchError(AgentFactoryError):
    """A configuration does not fit the template's config_schema."""

    reason = Reason.CONFIG_MISMATCH

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__(
            "expected a configuration that fits config_schema, got " + "; ".join(str(each) for each in violations[:5]),
            metadata={f"pointer{index or ''}": each.pointer for index, each in enumerate(violations[:8])},
        )


@dataclass(frozen=True, slots=True)
class EffectiveConfig:
    """An agent's configuration over one version's defaults; canonical."""

    template_sha256: str
    config: bytes
    config_sha256: str


@dataclass(slots=True)
class _Remembered:
    agent: Agent
    effective: EffectiveConfig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One request to create an agent, as it came; ``template`` is the active one that it names."""

    template: ActiveTemplate
    config: str
    agent_id: str
    request_id: str
    limits: tuple[tuple[str, int], ...] = ()


class AgentRegistry:
    """The agents of all tenants on this node."""

    def __init__(
        self,
        store: AgentStore,
        *,
        node_id: str,
        clock: Callable[[], datetime],
        on_deleted: Callable[[Agent], Awaitable[None]],
    ) -> None:
        """``on_deleted`` removes what is kept of an agent outside of the store."""
        self._store = store
        self._on_deleted = on_deleted
        self._node_id = node_id
        self._clock = clock
        self._remembered: OrderedDict[tuple[str, str], _Remembered] = OrderedDict()

    def name(self, agent: Agent) -> str:
        return str(AgentName(self._node_id, agent.agent_id))

    def local_id(self, name: str) -> str:
        """Return the id in ``nodes/<this node>/agents/<id>``.

        Raises:
            InvalidRequestError, WrongNodeError
        """
        parsed = AgentName.parse(name)
        if parsed.node != self._node_id:
            raise WrongNodeError(here=self._node_id, home=parsed.node)
        return parsed.agent_id

    async def create(self, tenant: str, wishes: Sequence[Wish | AgentFactoryError]) -> list[Agent | AgentFactoryError]:
        """Create what can be created, in one commit; refusals are values, in the order of the wishes."""
        checked = [each if isinstance(each, AgentFactoryError) else self._checked(tenant, each) for each in wishes]
        stored = iter(await self._store.create([each for each in checked if isinstance(each, NewAgent)]))
        made = [next(stored) if isinstance(each, NewAgent) else each for each in checked]
        for each in made:
            if isinstance(each, Agent):
                self._remember(each)
        return made

    async def get(self, tenant: str, agent_id: str) -> Agent:
        """Return an agent; raise `UnknownAgentError`."""
        return (await self._find(tenant, agent_id)).agent

    def remembered(self, tenant: str, agent_id: str, template_sha256: str) -> tuple[Agent, EffectiveConfig] | None:
        """Return an agent and its configuration without waiting, if both are in memory for this version."""
        found = self._remembered.get((tenant, agent_id))
        if found is None or found.effective is None or found.effective.template_sha256 != template_sha256:
            return None
        return found.agent, found.effective

    async def with_config(
        self, tenant: str, agent_id: str, template_of: Callable[[Agent], ActiveTemplate]
    ) -> tuple[Agent, ActiveTemplate, EffectiveConfig]:
        """Return an agent, its active template, and its configuration over that version's defaults.

        Raises:
            UnknownAgentError: or what ``template_of`` raises.
            ConfigMismatchError: a newer version's config_schema refuses the configuration.
        """
        found = await self._find(tenant, agent_id)
        template = template_of(found.agent)
        if found.effective is None or found.effective.template_sha256 != template.sha256:
            found.effective = effective_config(template, found.agent.config)
        return found.agent, template, found.effective

    async def list(self, tenant: str, *, template: TemplateName | None, after: str, count_max: int) -> Sequence[Agent]:
        return await self._store.list(tenant, template=template, after=after, count_max=count_max)

    async def delete(self, tenant: str, agent_id: str) -> None:
        """Delete an agent and its state; raise `UnknownAgentError`."""
        self._remembered.pop((tenant, agent_id), None)
        agent = await self._store.get(tenant, agent_id)
        deleted = await self._store.delete(tenant, agent_id)
        self._remembered.pop((tenant, agent_id), None)
        if agent is not None:
            await self._on_deleted(agent)
        if not deleted:
            raise UnknownAgentError(str(AgentName(self._node_id, agent_id)))

    async def count(self) -> int:
        return await self._store.count()

    def _checked(self, tenant: str, wish: Wish) -> NewAgent | AgentFactoryError:
        try:
            config = canonical_bytes(_parsed_config(wish.config))
            effective_config(wish.template, config)
            require_request_id(wish.request_id)
            given_id = require_agent_id(wish.agent_id) if wish.agent_id else ""
        except AgentFactoryError as error:
            return error
        name = wish.template.name
        agent = Agent(
            tenant=tenant,
            agent_id=given_id or f"{name.name.replace('_', '-')}-{secrets.token_hex(6)}",
            template=name,
            config=config,
            created_at=self._clock(),
            limits=wish.limits,
        )
        digest = request_digest(template=name, agent_id=given_id, config=config, limits=wish.limits)
        return NewAgent(agent=agent, request_id=wish.request_id, request_sha256=digest)

    async def _find(self, tenant: str, agent_id: str) -> _Remembered:
        found = self._remembered.get((tenant, agent_id))
        if found is not None:
            self._remembered.move_to_end((tenant, agent_id))
            return found
        agent = await self._store.get(tenant, agent_id)
        if agent is None:
            raise UnknownAgentError(str(AgentName(self._node_id, agent_id)))
        return self._remember(agent)

    def _remember(self, agent: Agent) -> _Remembered:
        found = self._remembered[agent.tenant, agent.agent_id] = _Remembered(agent)
        if len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)
        return found


def effective_config(template: ActiveTemplate, own: bytes) -> EffectiveConfig:
    """Merge and validate; raise `ConfigMismatchError`."""
    merged = merged_config(template.resolved.default_config, require_object(parse_json(own)))
    if template.config_schema is not None and (violations := template.config_schema.violations(merged)):
        raise ConfigMismatchError(violations)
    config = canonical_bytes(merged)
    return EffectiveConfig(template.sha256, config, config_digest(config))


def _parsed_config(text: str) -> JsonObject:
    if len(text.encode()) > CONFIG_BYTES_MAX:
        raise InvalidRequestError(field="config", expected=f"at most {CONFIG_BYTES_MAX} bytes", got=text)
    try:
        return require_object(parse_json(text) if text.strip() else {})
    except ValueError as error:
        raise InvalidRequestError(field="config", expected="strict JSON", got=str(error)) from None
