"""What the broker of a node carries grants out with, beside its own database: files, requests, language models."""

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from data_plane.admission.circuit_breaker import BreakerSettings, CircuitBreakers
from data_plane.broker.address_policy import Destinations
from data_plane.broker.http_grant import EgressAmounts
from data_plane.broker.llm_cache import AnswerCache, CacheBounds
from data_plane.egress_connect import Connector, SystemResolver, client_tls
from data_plane.file_exports import FileExports
from data_plane.http_calls import HttpCalls
from data_plane.http_egress import EgressLimits, HttpEgress
from data_plane.llm_bindings import offered_bindings
from data_plane.llm_calls import LlmCalls
from data_plane.scratch_directories import ScratchDirectories
from data_plane.secret_directory import SecretDirectory
from data_plane.settings import NodeSettings
from data_plane.sqlite_agents import SqliteAgents
from data_plane.sqlite_llm_use import SqliteLlmUse
from data_plane.sqlite_writer import SqliteWriter
from sandbox.file_session import FileLimits
from service.tasks import TaskSupervisor
from service.telemetry import Telemetry


@dataclass(frozen=True, slots=True, kw_only=True)
class Carriers:
    """One object for each interface that reaches further than the node's database."""

    files: FileExports
    http: HttpCalls
    llm: LlmCalls


async def make_carriers(
    settings: NodeSettings,
    stack: AsyncExitStack,
    *,
    agents: SqliteAgents,
    database_key: bytes,
    tasks: TaskSupervisor,
    telemetry: Telemetry,
    clock: Callable[[], float],
) -> Carriers:
    """Build them; ``stack`` closes what they hold. ``clock`` gives seconds since the epoch.

    Raises:
        AgentFactoryError: what the settings name is not there, or is not private.
    """
    llm_writer = await stack.enter_async_context(
        SqliteWriter(settings.store_directory / "llm_use.db", schema="llm_use", durable=False, key=database_key)
    )
    scratch = ScratchDirectories(
        settings.store_directory / "agent-files", free_bytes_min=settings.scratch_free_bytes_min
    )
    files = FileExports(
        settings.file_exports,
        scratch=scratch,
        find_agent=agents.get,
        limits=FileLimits(
            bytes_read_max=settings.file_bytes_read_max, bytes_written_max=settings.file_bytes_written_max
        ),
        threads_max=settings.file_threads,
    )
    stack.callback(files.close)
    await files.start()
    resolver = SystemResolver()
    stack.callback(resolver.close)
    secrets = SecretDirectory(settings.secrets_directory, monotonic=time.monotonic)
    llm = LlmCalls(
        bindings=offered_bindings(settings.llm_bindings, resolver=resolver, secrets=secrets, monotonic=time.monotonic),
        use=SqliteLlmUse(llm_writer),
        cache=AnswerCache(
            CacheBounds(
                ttl_s=settings.llm_cache_s,
                entries_max=settings.llm_cache_entries_max,
                bytes_max=settings.llm_cache_bytes_max,
            ),
            time.monotonic,
        ),
        breakers=CircuitBreakers(BreakerSettings()),
        tasks=tasks,
        telemetry=telemetry,
        clock=clock,
        monotonic=time.monotonic,
        streams_max=settings.llm_streams_max,
    )
    egress = HttpEgress(
        Connector(
            destinations=Destinations.parse(settings.private_origins),
            resolver=resolver,
            tls=client_tls(settings.egress_authorities_file),
        )
    )
    http = HttpCalls(
        egress,
        secrets=secrets,
        allowed=EgressAmounts(
            requests_max=settings.http_requests_max, response_bytes_max=settings.http_response_bytes_max
        ),
        limits=EgressLimits(first_byte_s=settings.http_timeout_s, total_s=settings.http_timeout_s),
        per_tenant_max=settings.http_per_tenant_max,
        breakers=CircuitBreakers(BreakerSettings()),
        telemetry=telemetry,
        monotonic=time.monotonic,
    )
    return Carriers(files=files, http=http, llm=llm)
