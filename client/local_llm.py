"""The grant `llm` in one `agentctl template run`: by the broker's own rules, at the endpoints the command line names.

Like `client.local_http` it imports the data plane (ADR 12), so that an author meets the refusals of a node. The author
is the operator here: the named address may be this machine, and what is bounded is the grant's ``tokens_max``. There
are no prices, and so no bound on cost.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from client.local_http import InvalidOutsideError, NamedFiles
from data_plane.admission.circuit_breaker import BreakerSettings, CircuitBreakers
from data_plane.agents.agent import AgentScope
from data_plane.broker.amounts import Amounts
from data_plane.broker.answers import HostRefusal, Members, answer_error, answer_ok
from data_plane.broker.llm_budget import LlmAllowances
from data_plane.broker.llm_cache import AnswerCache, CacheBounds
from data_plane.egress_connect import SystemResolver
from data_plane.llm_bindings import offered_bindings
from data_plane.llm_calls import LlmCaller, LlmCalls, LlmInvocation
from data_plane.llm_settings import LlmBindingSettings, LlmModelSettings
from service.settings import InvalidSettingsError
from service.tasks import TaskSupervisor
from service.telemetry import Telemetry
from templates.grants import LlmGrant
from templates.resolved import ResolvedTemplate

LOOPBACK: Final = {"127.0.0.1": "127.0.0.1/32", "localhost": "127.0.0.1/32", "[::1]": "::1/128"}
BOUNDS: Final = CacheBounds(ttl_s=3_600, entries_max=100, bytes_max=1_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """What the command line names: base URLs and files with keys by the grant's binding; ``private`` as for http."""

    urls: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, Path] = field(default_factory=dict)
    private: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    authorities: Path | None = None


class LocalLlm:
    """Carries out the calls of one run; close it afterwards."""

    def __init__(self, resolved: ResolvedTemplate, models: Models, amounts: Amounts) -> None:
        """Raise `InvalidOutsideError` for what cannot be meant."""
        grants = {each.binding: replace(each, cost_max_microusd=None) for each in resolved.grants.llm}
        if strange := sorted((models.urls.keys() | models.keys.keys()) - grants.keys()):
            raise InvalidOutsideError(f"expected an llm binding of {resolved.ref}, got {strange[0]}")
        self._resolver = SystemResolver(threads=1)
        self._tasks = TaskSupervisor()
        try:
            settings = {name: _settings(grants[name], url, models) for name, url in models.urls.items()}
            bindings = offered_bindings(
                settings, resolver=self._resolver, secrets=NamedFiles(models.keys), monotonic=time.monotonic
            )
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            raise InvalidOutsideError(f"expected an endpoint: {problem['msg']}") from None
        except InvalidSettingsError as error:
            raise InvalidOutsideError(error.message) from None
        calls = LlmCalls(
            bindings=bindings,
            use=None,
            cache=AnswerCache(BOUNDS, time.monotonic),
            breakers=CircuitBreakers(BreakerSettings()),
            tasks=self._tasks,
            telemetry=Telemetry(),
            clock=lambda: 0.0,  # nothing is counted by the day
            monotonic=time.monotonic,
            streams_max=len(grants) * 16,
        )
        allowed = [each for each in grants.values() if each.binding in models.urls]
        self._invocation = LlmInvocation(
            calls,
            LlmCaller(
                scope=AgentScope(tenant="local", template=resolved.ref.template_name, agent_id=""),
                grants=allowed,
                allowances=LlmAllowances(allowed),
                amounts=amounts,
                deadline=asyncio.get_running_loop().time() + resolved.limits.wall_ms / 1000,
            ),
        )

    async def call(self, function: str, argument: bytes) -> bytes:
        """Answer one host call as the broker does."""
        try:
            return answer_ok(await self._invocation.call(function, Members.parse(argument)))
        except HostRefusal as refusal:
            return answer_error(refusal)

    async def close(self) -> None:
        self._invocation.close()
        await self._tasks.close()
        self._resolver.close()


def _settings(grant: LlmGrant, url: str, models: Models) -> LlmBindingSettings:
    origin = "/".join(url.split("/")[:3])
    host = origin.partition("://")[2].rpartition(":")[0] or origin.partition("://")[2]
    networks = models.private.get(origin, ())
    if not networks and host in LOOPBACK:
        networks = (LOOPBACK[host],)
    return LlmBindingSettings(
        base_url=url,
        models={each: LlmModelSettings() for each in grant.models},
        secret=grant.binding if grant.binding in models.keys else None,
        networks=networks,
        ca_file=models.authorities,
    )
