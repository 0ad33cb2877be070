"""``agentfactory-node``: settings → store → workers → updater → servers → serve → drain; teardown is the reverse."""

import argparse
import asyncio
import fcntl
import gc
import importlib.metadata
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime
from enum import StrEnum, unique
from pathlib import Path

import grpc.aio
from agentfactory.agent.v1 import agent_pb2_grpc
from agentfactory.node.v1 import node_pb2_grpc
from cryptography import x509

from data_plane.activation.generation import ActiveGeneration
from data_plane.admission.callers import CallerRoom
from data_plane.admission.concurrency import ConcurrencyLimit, ConcurrencySettings
from data_plane.admission.effective import EffectiveLimits
from data_plane.admission.quarantine import Quarantine, QuarantineSettings
from data_plane.admission_gate import AdmissionGate
from data_plane.agent_registry import AgentRegistry
from data_plane.agents.access import RecordingAccess, ServiceAccess
from data_plane.agents.agent import AgentScope
from data_plane.agents.ports import KvStore
from data_plane.audit_witness import AuditWitness
from data_plane.authorisation import RULES, SERVICE_NAMES, charter_and_revocations
from data_plane.carriers import make_carriers
from data_plane.generation_files import GenerationFiles
from data_plane.grpc_agent_service import GrpcAgentService
from data_plane.grpc_node_service import GrpcNodeService, NodeFacts
from data_plane.grpc_subscriber import Backoff, Figures, GrpcSubscriber, Holding
from data_plane.host_calls import Broker
from data_plane.invoker import Invoker, Running
from data_plane.isolation import Isolation, demanded_level
from data_plane.node_state import NodeState
from data_plane.proc_times import processor_time
from data_plane.receipts import ReceiptDesk
from data_plane.recorder import Recorders
from data_plane.recording_files import RecordingBounds, RecordingFiles
from data_plane.recording_keys import LocalRecordingKeys
from data_plane.sealed_files import StoreDamagedError, StoreFailedError
from data_plane.seeding import seed_store
from data_plane.settings import Mode, NodeSettings
from data_plane.sqlite_agents import SqliteAgents
from data_plane.sqlite_invocations import SqliteInvocations
from data_plane.sqlite_writer import SqliteWriter
from data_plane.staging import CodeStore, Staging
from data_plane.updater import Updater
from data_plane.worker_pool import PoolSettings, SandboxWorker, WorkerPool
from sandbox.compile_cache import CompileCache
from sandbox.compiler import CompilerSettings
from sandbox.jail_probe import probe
from sandbox.process import Confinement, ProcessError
from sandbox.supervisor import Worker, WorkerSettings
from sandbox.worker_errors import IsolationError
from service.access.authority import GroundKeeper
from service.access.entrance import Entrance
from service.identity import IdentityKind, InvalidIdentityError, identity_of_certificate
from service.interceptors import ServerGuard
from service.logs import configure_logs, get_logger
from service.observation import ObservationServer, Readiness
from service.receipt_keys import ReceiptSigner
from service.server import ServerLimits, ServiceServer, build_server
from service.settings import InvalidSettingsError
from service.tasks import TaskSupervisor
from service.telemetry import CERTIFICATE_EXPIRES, ISOLATION_LEVEL, Field, ServiceName, start_telemetry
from service.tls import certificate_of, channel_credentials
from templates.reasons import AgentFactoryError
from templates.trusted_set import Installation
from templates.trusted_set_errors import DevelopmentModeError

EXIT_REFUSED = 2
HOUSEKEEPING_S = 1.0
KV_COLLECT_S = 10.0
KV_MORE_S = 0.05

log = get_logger("node")


@unique
class Event(StrEnum):
    """What this module logs."""

    STARTED = "node_started"
    STOPPED = "node_stopped"
    SEEDED = "store_seeded"
    REFUSED_TO_START = "node_refused_to_start"
    FAILED = "node_failed"
    READINESS_CHANGED = "readiness_changed"
    ISOLATION_FOUND = "isolation_found"
    NOT_PROBED = "isolation_not_probed"
    NOT_COLLECTED = "kv_not_collected"


def main() -> None:
    """Run until SIGTERM or SIGINT; exit status 0, or 2 with one clear line when it refuses to start."""
    arguments = _arguments()
    try:
        settings = NodeSettings.load(os.environ)
    except InvalidSettingsError as error:
        sys.exit("\n".join(("agentfactory-node refuses to start:", *error.lines)))
    configure_logs(level=settings.log_level, form=settings.log_format)
    try:
        if arguments.import_bundle is not None:
            _import(settings, arguments.import_bundle, arguments.import_blobs)
            return
        sys.exit(asyncio.run(serve(settings)))
    except AgentFactoryError as error:
        log.error(Event.REFUSED_TO_START, reason=error.reason, error=error.message)  # noqa: TRY400 - an expected error
        sys.exit(EXIT_REFUSED)


async def serve(settings: NodeSettings) -> int:  # noqa: PLR0915 -- the one function that says how a node is made
    """Build everything, boot from disk, serve, and drain; return the exit status.

    Raises:
        AgentFactoryError: the process must not serve; nothing was listening yet.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    installation = _installation(settings)
    node_id = installation.node_id
    facts = NodeFacts(
        node_id=node_id,
        version=importlib.metadata.version("agent-factory"),
        wasmtime_version=importlib.metadata.version("wasmtime"),
        started_at=_now(),
    )
    async with AsyncExitStack() as stack:
        telemetry = start_telemetry(
            service_name=ServiceName.NODE,
            instance=node_id,
            otlp_endpoint=settings.otlp_endpoint,
            trace_ratio=settings.otlp_trace_ratio,
        )
        stack.callback(telemetry.close)
        certificate = certificate_of(settings.tls_files)
        telemetry.gauge(CERTIFICATE_EXPIRES, certificate.not_valid_after_utc.timestamp())
        desk = ReceiptDesk(
            ReceiptSigner.create(settings.tls_files, now=_now()), node_uri=identity_of_certificate(certificate).uri
        )

        # The store
        files = GenerationFiles(settings.store_directory)
        stack.enter_context(_locked(settings.store_directory))
        cache = CompileCache(
            files.compile_cache_directory, key=files.compile_cache_key, bytes_max=settings.compile_cache_bytes_max
        )
        agents_writer = await stack.enter_async_context(
            SqliteWriter(settings.store_directory / "agents.db", schema="agents", durable=True, key=files.database_key)
        )
        log_writer = await stack.enter_async_context(
            SqliteWriter(
                settings.store_directory / "invocations.db",
                schema="invocations",
                durable=False,
                key=files.database_key,
            )
        )
        store = SqliteAgents(agents_writer, agents_max=settings.agents_max)
        invocations = SqliteInvocations(
            log_writer, kept_max=settings.invocations_kept, kept_s=settings.invocations_kept_s
        )
        stack.push_async_callback(invocations.flush)
        recordings = RecordingFiles(
            settings.store_directory / "recordings",
            keys=LocalRecordingKeys(settings.store_directory / "recording-keys"),
            bounds=RecordingBounds(
                count_max=settings.recordings_kept,
                bytes_max=settings.recordings_bytes_max,
                age_s_max=settings.recordings_kept_s,
            ),
            telemetry=telemetry,
            clock=time.time,
        )
        recordings.load()

        # Workers, and the way of an invocation through them
        tasks = await stack.enter_async_context(TaskSupervisor(telemetry))
        carriers = await make_carriers(
            settings,
            stack,
            agents=store,
            database_key=files.database_key,
            tasks=tasks,
            telemetry=telemetry,
            clock=time.time,
        )
        isolation = Isolation(demanded_level(settings))
        code = CodeStore(files, cache, telemetry, CompilerSettings(jail=isolation.demanded))
        telemetry.measure(ISOLATION_LEVEL, lambda: isolation.rank)
        worker_settings = WorkerSettings(jail=isolation.demanded)

        async def start_worker() -> SandboxWorker:
            try:
                worker = await Worker.start(worker_settings)
            except IsolationError as error:
                _observe(isolation, Confinement(level=error.reached, missing=error.missing))
                raise
            _observe(isolation, Confinement(level=worker.level, missing=worker.missing))
            return worker

        quotas = settings.quotas(processors=len(os.sched_getaffinity(0)))
        pool = WorkerPool(
            start=start_worker,
            code=code.compiled,
            settings=PoolSettings(
                per_tenant=settings.workers_per_tenant,
                spares=settings.spare_workers,
                workers_max=settings.workers_max,
                idle_s=settings.worker_idle_s,
            ),
            tasks=tasks,
            telemetry=telemetry,
            monotonic=time.monotonic,
            most_of=lambda tenant: quotas.of(tenant).workers,
            cpu_s=processor_time,
        )
        stack.push_async_callback(pool.close)

        def host_calls(running: Running, scope: AgentScope) -> Broker:
            return Broker(
                running,
                scope,
                kv=store,
                files=carriers.files,
                http=carriers.http,
                llm=carriers.llm,
                invoker=invoker,
                depth_max=settings.child_depth_max,
                telemetry=telemetry,
                monotonic=time.monotonic,
            )

        invoker = Invoker(
            pool=pool,
            host_calls=host_calls,
            recorders=Recorders(
                node_id=node_id,
                engine=cache.engine_fingerprint,
                access=RecordingAccess(settings.recording_templates),
                store=recordings,
                bytes_max=settings.recording_bytes_max,
                telemetry=telemetry,
            ),
            invocations=invocations,
            gate=AdmissionGate(
                limit=ConcurrencyLimit(
                    ConcurrencySettings(limit_max=settings.concurrency_max), process_time=time.process_time
                ),
                quotas=quotas,
                queue_max=settings.queue_max,
                wait_s_max=settings.queue_wait_s_max,
            ),
            limits=EffectiveLimits(node=settings.limits_max, tenants=settings.tenant_limits_max),
            callers=CallerRoom(slots=worker_settings.slots, depth_max=settings.child_depth_max),
            quarantine=Quarantine(QuarantineSettings()),
            telemetry=telemetry,
            clock=time.time,
            monotonic=time.monotonic,
        )
        registry = AgentRegistry(store, node_id=node_id, clock=_now, on_deleted=carriers.files.forget_agent)

        # What is active, and how it changes
        staging = Staging(files=files, code=code, pool=pool, telemetry=telemetry)

        async def after_swap(active: ActiveGeneration) -> None:
            await pool.keep_only(active.modules)
            await asyncio.to_thread(code.keep_only, active.modules | files.kept_code())

        updater = Updater(
            files=files,
            pinned_root=settings.root_file.read_bytes(),
            installation=installation,
            stager=staging,
            swap=invoker.swap,
            renew=invoker.renew,
            after_swap=after_swap,
            tasks=tasks,
            telemetry=telemetry,
            clock=_now,
            monotonic=time.monotonic,
            bundle_bytes_max=settings.bundle_bytes_max,
            generations_kept=settings.generations_kept,
        )
        staging.active = lambda: updater.active
        witness = AuditWitness(
            settings.store_directory / "audit-checkpoint",
            key=files.audit_key,
            environment=installation.environment,
            root=lambda: updater.trusted_root,
        )
        state = NodeState(updater, invoker, isolation, _now, witness)
        if not settings.spare_workers:  # otherwise the first of them tells
            tasks.start(_find_isolation(isolation), name="isolation", essential=False)
        tasks.start(pool.run(rehearsing=settings.control_plane is not None), name="worker-pool")
        tasks.start(invocations.run(), name="invocation-log")
        tasks.start(recordings.run(), name="recordings", essential=False)
        await updater.boot()
        invoker.not_serving = state.look().reason or invoker.not_serving

        # The control plane
        subscriber: GrpcSubscriber | None = None
        if settings.control_plane is not None:

            def holding() -> Holding:
                active = updater.active
                return Holding(
                    generation=0 if active is None else active.number,
                    root_version=updater.root_version,
                    lease_version=0 if active is None else active.accepted.lease.version,
                    bundle_sha256=updater.bundle_sha256,
                    node_version=facts.version,
                    wasmtime_version=facts.wasmtime_version,
                    audit_checkpoint=witness.held,
                )

            async def figures() -> Figures:
                look = state.look()
                return Figures(
                    generation=0 if look.active is None else look.active.number,
                    in_flight=invoker.in_flight,
                    agents=await store.count(),
                    invocations=invoker.counts.invocations,
                    failures=invoker.counts.failures,
                    state=str(look.state),
                    isolation=isolation.level or "",
                    audit_checkpoint=witness.held,
                    quarantined=state.quarantined(look.active, now=time.monotonic()),
                )

            subscriber = GrpcSubscriber(
                target=settings.control_plane,
                credentials=lambda: channel_credentials(settings.tls_files),
                listener=updater,
                holding=holding,
                figures=figures,
                backoff=Backoff(first_s=0.2, max_s=settings.reconnect_s_max, jitter=_jitter),
                report_period_s=settings.report_period_s,
                fetch_timeout_s=settings.fetch_timeout_s,
                witness=witness,
            )
            updater.answers = subscriber
            staging.blob_source = subscriber
            tasks.start(subscriber.run(), name="subscriber")

        # The servers
        entrance = Entrance(
            settings,
            rules=RULES,
            keeper=GroundKeeper(lambda: updater.active, charter_and_revocations),
            state_directory=settings.store_directory,
            telemetry=telemetry,
        )

        def register(server: grpc.aio.Server) -> None:
            entrance.register(server)
            agent_pb2_grpc.add_AgentServiceServicer_to_server(
                GrpcAgentService(
                    node_id=node_id,
                    invoker=invoker,
                    agents=registry,
                    invocations=invocations,
                    recordings=recordings,
                    access=ServiceAccess(settings.tenant_templates),
                    desk=desk,
                    monotonic=time.monotonic,
                ),
                server,
            )
            node_pb2_grpc.add_NodeServiceServicer_to_server(
                GrpcNodeService(
                    facts=facts,
                    state=state,
                    invoker=invoker,
                    pool=pool,
                    agents=store.count,
                    connected=lambda: subscriber is not None and subscriber.connected,
                    clock=_now,
                    authority=entrance.authority,
                    monotonic=time.monotonic,
                ),
                server,
            )

        guard = ServerGuard(
            trust_domain=settings.trust_domain,
            authorise=entrance.authority.authorise,
            telemetry=telemetry,
            unary_deadline_s=settings.unary_deadline_s,
            calls_max=settings.calls_max,
            gate=entrance.gate,
            people=entrance.people,
        )
        server = build_server(
            host=settings.listen_host,
            port=settings.listen_port,
            credentials=entrance.credentials,
            guard=guard,
            people=entrance.people_port,
            register=register,
            service_names=SERVICE_NAMES,
            limits=ServerLimits(message_bytes_max=settings.message_bytes_max),
        )
        observed = await stack.enter_async_context(
            ObservationServer(
                host=settings.observation_host,
                port=settings.observation_port,
                readiness=lambda: _readiness(state, facts),
                metrics=telemetry.prometheus_text,
            )
        )
        await stack.enter_async_context(server)
        look = state.look()
        await server.set_serving(serving=look.is_ready)
        tasks.start(entrance.keep(guard), name="access")
        tasks.start(_keep_house(state, invoker, server), name="housekeeping")
        tasks.start(_collect_expired(store), name="kv-collector")
        log.info(
            Event.STARTED,
            node=node_id,
            port=server.port,
            observation_port=observed.port,
            state=str(look.state),
            generation=0 if look.active is None else look.active.number,
            environment=installation.environment,
            mode=str(settings.mode),
        )
        _spare_the_collector()
        failed = await _until_stopped(stop, tasks)
        invoker.draining = True
        await server.drain(settings.drain_s)
        log.info(Event.STOPPED, node=node_id, invocations=invoker.counts.invocations)
        return 1 if failed else 0


def _spare_the_collector() -> None:
    """Let the cycle collector look at what calls leave behind, rarely, and never again at what was built at start.

    With its defaults it walks every object of a thousand calls in flight again and again, which costs a third of the
    rate; almost everything that a call makes is freed by reference counts.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(250_000, 20, 100)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="agentfactory-node",
        description="Runs one node; everything is set by AGENTFACTORY_NODE_* variables (docs/settings.md).",
    )
    parser.add_argument(
        "--import-bundle", type=Path, metavar="FILE", help="verify this bundle, store it as the newest generation, exit"
    )
    parser.add_argument(
        "--import-blobs", type=Path, metavar="DIR", help="where the bundle's source and modules lie, named by sha256"
    )
    return parser.parse_args()


def _import(settings: NodeSettings, bundle: Path, blobs: Path | None) -> None:
    found = {} if blobs is None else {path.name: path.read_bytes() for path in blobs.iterdir() if path.is_file()}
    settings.store_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(settings.store_directory):
        generation = seed_store(
            settings.store_directory,
            root=settings.root_file.read_bytes(),
            bundle=bundle.read_bytes(),
            blobs=found,
            installation=_installation(settings),
            now=_now(),
        )
    log.info(Event.SEEDED, generation=generation)


def _installation(settings: NodeSettings) -> Installation:
    """Read who this node is from its own certificate."""
    identity = identity_of_certificate(x509.load_pem_x509_certificate(settings.tls_certificate_file.read_bytes()))
    if identity.kind is not IdentityKind.NODE:
        raise InvalidIdentityError(f"expected the certificate of a node, got {identity}")
    environment, mode = _pinned(settings.root_file)
    production = settings.mode is Mode.PRODUCTION
    if production and mode != settings.mode:
        raise DevelopmentModeError(f"expected a root of mode production, got {mode}", role="root")
    return Installation(node_id=identity.name, environment=settings.environment or environment, production=production)


def _pinned(root_file: Path) -> tuple[str, str]:
    """Return environment and mode of the root that was pinned at installation; its signatures are checked later."""
    try:
        signed = json.loads(root_file.read_bytes())["signed"]
        return str(signed["environment"]), str(signed["mode"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreDamagedError(root_file, f"a TUF root that names environment and mode, got {error!r}") from error


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Own the store for as long as this process lives; raise `StoreFailedError` if another process does."""
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreFailedError(f"expected {directory} to be free, got one that another node uses") from None
        yield


async def _keep_house(state: NodeState, invoker: Invoker, server: ServiceServer) -> None:
    """Health follows the state, and what the lease does not let run is stopped."""
    was_ready = state.look().is_ready
    while True:
        await asyncio.sleep(HOUSEKEEPING_S if was_ready else HOUSEKEEPING_S / 10)
        invoker.stop_expired()
        look = state.look()
        invoker.not_serving = look.reason
        if look.is_ready is not was_ready:
            was_ready = look.is_ready
            await server.set_serving(serving=was_ready)
            log.info(Event.READINESS_CHANGED, ready=was_ready, state=str(look.state), reason=look.reason)


async def _find_isolation(isolation: Isolation) -> None:
    try:
        _observe(isolation, await probe())
    except ProcessError as error:
        log.warning(Event.NOT_PROBED, **{Field.ERROR: str(error)})


def _observe(isolation: Isolation, reached: Confinement) -> None:
    if (isolation.level, isolation.missing) != (reached.level, reached.missing):
        level = {Field.ISOLATION: reached.level}
        log.info(Event.ISOLATION_FOUND, **level, demanded=isolation.demanded, missing=list(reached.missing))
    isolation.observe(reached)


async def _collect_expired(store: KvStore) -> None:
    """Free what expired key-value entries take; nobody has seen them since they expired."""
    while True:
        has_more = False
        try:
            has_more = await store.kv_collect()
        except AgentFactoryError as error:  # a full disk, say: whoever writes is told; this only tidies up
            log.warning(Event.NOT_COLLECTED, reason=error.reason, error=error.message)
        await asyncio.sleep(KV_MORE_S if has_more else KV_COLLECT_S)


async def _until_stopped(stop: asyncio.Event, tasks: TaskSupervisor) -> bool:
    """Wait for a signal, or for an essential task to fail; return whether it was the latter."""
    async with TaskSupervisor() as waiting:
        failed = asyncio.Event()

        async def watch() -> None:
            log.error(Event.FAILED, task=await tasks.wait_failed())
            failed.set()
            stop.set()

        waiting.start(watch(), name="watch-tasks", essential=False)
        await stop.wait()
        return failed.is_set()


def _readiness(state: NodeState, facts: NodeFacts) -> Readiness:
    look = state.look()
    return Readiness(
        ready=look.is_ready,
        facts={
            "node": facts.node_id,
            "state": str(look.state),
            "reason": look.reason,
            "generation": 0 if look.active is None else look.active.number,
            "lease_expired": look.lease_expired,
            "isolation": state.isolation.level or "",
            "isolation_min": state.isolation.demanded,
        },
    )


def _jitter() -> float:
    return int.from_bytes(os.urandom(4), "big") / 2**32


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    main()
