"""``agentfactory-control-plane``: settings → adapters → features → serve → drain; teardown is the reverse."""

import asyncio
import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime
from enum import StrEnum, unique
from pathlib import Path

import grpc.aio
from agentfactory.admin.v1 import admin_pb2_grpc, audit_pb2_grpc, policy_pb2_grpc
from agentfactory.distribution.v1 import distribution_pb2_grpc
from sqlalchemy.exc import SQLAlchemyError

from control_plane.access_record import AccessRecord
from control_plane.auditing import start_auditing
from control_plane.authorisation import ENDLESS, RULES, SERVICE_NAMES
from control_plane.change_desk import ChangeDesk
from control_plane.compressed_blobs import CompressedBlobs
from control_plane.fan_out import FanOut, PushTimes
from control_plane.file_blobs import FileBlobs
from control_plane.glasses import Glasses
from control_plane.grpc_admin import ChangeService, TemplateService
from control_plane.grpc_audit import AuditService
from control_plane.grpc_mutations import Mutations
from control_plane.grpc_operations import FleetService, KeyService, RolloutService, warnings_of
from control_plane.grpc_policy import PolicyService
from control_plane.grpc_push import DistributionService
from control_plane.intake import Intake
from control_plane.mutation import ANSWERS_KEPT
from control_plane.policy_gate import PolicyGate
from control_plane.publication import OWN_NODE_ID, Terms
from control_plane.publisher import Publisher
from control_plane.sandbox_inspector import inspect_module
from control_plane.settings import ControlPlaneSettings
from control_plane.sqlite_break_glass import SqliteBreakGlass
from control_plane.sqlite_store import SqliteStore
from control_plane.trust_directory import read_trust_directory
from control_plane.turns import Turns
from service.access.authority import Authority, GroundKeeper
from service.access.entrance import Entrance
from service.identity import identity_of_certificate
from service.interceptors import ServerGuard
from service.keystore import passphrase_from, read_key
from service.logs import configure_logs, get_logger
from service.observation import ObservationServer, Readiness
from service.server import ServerLimits, build_server
from service.settings import InvalidSettingsError
from service.tasks import TaskSupervisor
from service.telemetry import CERTIFICATE_EXPIRES, ServiceName, start_telemetry
from service.tls import certificate_of
from templates.bundle import FRAME_BYTES_MAX
from templates.charter import Charter, read_charter
from templates.reasons import AgentFactoryError, Reason
from templates.repository import OnlineSigners
from templates.trusted_set import Installation

SAVE_NODES_EVERY_S = 2.0
WARN_EVERY_S = 3600.0
FORGET_EVERY_S = 3600.0
BLOB_AGE_S = 24 * 3600.0
EXIT_REFUSED = 2
MESSAGE_OVERHEAD_BYTES = 64 * 1024

log = get_logger("control_plane")


@unique
class Event(StrEnum):
    STARTED = "control_plane_started"
    STOPPED = "control_plane_stopped"
    REFUSED_TO_START = "control_plane_refused_to_start"
    FAILED = "control_plane_failed"
    EXPIRY_NEAR = "expiry_near"
    BLOBS_SWEPT = "blobs_swept"


class StateLockedError(AgentFactoryError):
    """Another process owns the state directory."""

    reason = Reason.STATE_LOCKED


def main() -> None:
    """Run until SIGTERM or SIGINT; exit status 0, or 2 with one clear line when it refuses to start."""
    try:
        settings = ControlPlaneSettings.load(os.environ)
    except InvalidSettingsError as error:
        sys.exit("\n".join(("agentfactory-control-plane refuses to start:", *error.lines)))
    configure_logs(level=settings.log_level, form=settings.log_format)
    try:
        sys.exit(asyncio.run(serve(settings)))
    except AgentFactoryError as error:
        log.error(Event.REFUSED_TO_START, reason=error.reason, error=error.message)  # noqa: TRY400 - an expected error
        sys.exit(EXIT_REFUSED)
    except (OSError, SQLAlchemyError) as error:  # an unwritable directory, a damaged database, a taken port
        log.error(Event.REFUSED_TO_START, reason=Reason.STATE_UNUSABLE, error=str(error).splitlines()[0])  # noqa: TRY400
        sys.exit(EXIT_REFUSED)


class _PushLimits(ServerLimits):
    """A generation may be longer than any request."""

    def options(self) -> Sequence[tuple[str, int]]:
        sent = "grpc.max_send_message_length"
        kept = [option for option in super().options() if option[0] != sent]
        return (*kept, (sent, max(self.message_bytes_max, FRAME_BYTES_MAX + MESSAGE_OVERHEAD_BYTES)))


async def serve(settings: ControlPlaneSettings) -> int:  # noqa: PLR0915 -- says how a control plane is made
    """Build everything, serve, and drain.

    Raises:
        AgentFactoryError: the process must not serve; nothing was listening yet.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        certificate = certificate_of(settings.tls_files)
        own = identity_of_certificate(certificate)
        telemetry = start_telemetry(
            service_name=ServiceName.CONTROL_PLANE,
            instance=own.name,
            otlp_endpoint=settings.otlp_endpoint,
            trace_ratio=settings.otlp_trace_ratio,
        )
        stack.callback(telemetry.close)
        telemetry.gauge(CERTIFICATE_EXPIRES, certificate.not_valid_after_utc.timestamp())
        trust = read_trust_directory(settings.trust_dir)
        charter = read_charter(trust.charter)
        terms = _terms(settings, charter)

        stack.enter_context(_locked(settings.state_dir))
        blobs = FileBlobs(settings.state_dir / "blobs")
        store = SqliteStore.open(settings.state_dir / "state.db", own=own.uri)
        stack.callback(store.close)

        fan_out = FanOut(
            times=PushTimes(
                debounce_s=settings.debounce_ms / 1000,
                ack_timeout_s=settings.ack_timeout_s,
                reconnect_window_s=settings.reconnect_window_s,
            ),
            telemetry=telemetry,
            clock=_now,
            known_nodes=store.nodes(),
        )
        stack.callback(lambda: store.save_nodes(fan_out.take_changed()))
        turns = await stack.enter_async_context(Turns())
        glasses = Glasses(store=SqliteBreakGlass(store), telemetry=telemetry, clock=_now)
        policy = PolicyGate(glasses=glasses, telemetry=telemetry)
        publisher = Publisher(
            store=store,
            blobs=blobs,
            terms=terms,
            audience=fan_out,
            telemetry=telemetry,
            turns=turns,
            policy=policy,
            clock=_now,
        )
        await publisher.start(trust)
        swept = blobs.sweep(keep=store.referenced_blobs(), older_than=time.time() - BLOB_AGE_S)
        log.info(Event.BLOBS_SWEPT, removed=swept)
        intake = Intake(
            store=store,
            blobs=blobs,
            inspect=inspect_module,
            publisher=publisher,
            policy=policy,
            turns=turns,
            telemetry=telemetry,
        )

        entrance = Entrance(
            settings,
            rules=RULES,
            keeper=GroundKeeper(lambda: publisher.present, lambda present: (present.charter, present.revocations)),
            state_directory=settings.state_dir,
            telemetry=telemetry,
            endless=ENDLESS,
        )
        authority = entrance.authority
        desk = ChangeDesk(store=store, publisher=publisher, telemetry=telemetry, turns=turns)
        audit = await start_auditing(
            stack,
            settings,
            store,
            publisher,
            telemetry,
            signer=terms.signers.snapshot,
            own=own.uri,
            clock=_now,
            authority=authority,
        )
        entrance.record = AccessRecord(audit.recorder)
        mutations = await stack.enter_async_context(Mutations(store))

        def register(server: grpc.aio.Server) -> None:
            entrance.register(server)
            admin_pb2_grpc.add_TemplateServiceServicer_to_server(
                TemplateService(
                    intake=intake, store=store, publisher=publisher, mutations=mutations, authority=authority
                ),
                server,
            )
            admin_pb2_grpc.add_ChangeServiceServicer_to_server(
                ChangeService(
                    store=store,
                    blobs=blobs,
                    intake=intake,
                    publisher=publisher,
                    desk=desk,
                    mutations=mutations,
                    telemetry=telemetry,
                    authority=authority,
                ),
                server,
            )
            _add_operations(
                server,
                store=store,
                publisher=publisher,
                fan_out=fan_out,
                glasses=glasses,
                mutations=mutations,
                authority=authority,
            )
            audit_pb2_grpc.add_AuditServiceServicer_to_server(
                AuditService(store=store, audit_log=audit.log, nodes=audit.nodes, authority=authority), server
            )
            distribution_pb2_grpc.add_DistributionServiceServicer_to_server(
                DistributionService(
                    fan_out=fan_out,
                    blobs=CompressedBlobs(blobs, bytes_max=settings.blob_cache_bytes_max),
                    audit=audit.nodes,
                ),
                server,
            )

        guard = ServerGuard(
            trust_domain=settings.trust_domain,
            authorise=authority.authorise,
            telemetry=telemetry,
            unary_deadline_s=settings.unary_deadline_s,
            calls_max=settings.calls_max,
            gate=entrance.gate,
            people=entrance.people,
            observer=audit.recorder,
        )
        server = build_server(
            host=settings.listen_host,
            port=settings.listen_port,
            credentials=entrance.credentials,
            guard=guard,
            people=entrance.people_port,
            register=register,
            service_names=SERVICE_NAMES,
            limits=_PushLimits(message_bytes_max=settings.message_bytes_max),
        )
        ready = asyncio.Event()
        observed = await stack.enter_async_context(
            ObservationServer(
                host=settings.observation_host,
                port=settings.observation_port,
                readiness=lambda: _readiness(publisher, ready),
                metrics=telemetry.prometheus_text,
            )
        )
        await stack.enter_async_context(server)
        tasks = await stack.enter_async_context(TaskSupervisor(telemetry))
        for name, work in {
            "keep-fresh": publisher.keep_fresh(every_s=settings.lease_renewal_s),
            "access": entrance.keep(guard),
            "save-nodes": _save_nodes(fan_out, store),
            "warn-of-expiry": _warn(publisher),
            "forget-answers": _forget_answers(store),
            "summarise-refusals": audit.recorder.summarise(),
            "keep-audit-log": audit.log.keep(),
        }.items():
            tasks.start(work, name=name)
        ready.set()
        await server.set_serving(serving=True)
        log.info(
            Event.STARTED,
            port=server.port,
            people_port=server.people_port,
            observation_port=observed.port,
            generation=publisher.present.number,
            environment=charter.environment,
            mode=charter.mode,
        )
        failed = await _until_stopped(stop, tasks)
        ready.clear()
        fan_out.drain()
        await server.drain(settings.drain_s)
        log.info(Event.STOPPED, generation=publisher.present.number)
        return 1 if failed else 0


def _add_operations(
    server: grpc.aio.Server,
    *,
    store: SqliteStore,
    publisher: Publisher,
    fan_out: FanOut,
    glasses: Glasses,
    mutations: Mutations,
    authority: Authority,
) -> None:
    """Add what operators ask."""
    admin_pb2_grpc.add_RolloutServiceServicer_to_server(
        RolloutService(store=store, publisher=publisher, fan_out=fan_out, mutations=mutations, authority=authority),
        server,
    )
    admin_pb2_grpc.add_FleetServiceServicer_to_server(FleetService(publisher=publisher, fan_out=fan_out), server)
    admin_pb2_grpc.add_KeyServiceServicer_to_server(KeyService(publisher=publisher, mutations=mutations), server)
    policy_pb2_grpc.add_PolicyServiceServicer_to_server(
        PolicyService(publisher=publisher, glasses=glasses, mutations=mutations, authority=authority), server
    )


def _terms(settings: ControlPlaneSettings, charter: Charter) -> Terms:
    if settings.lease_s is not None and settings.lease_s > charter.lease_s_max:
        variable = ControlPlaneSettings.variable("lease_s")
        raise InvalidSettingsError(
            [f"{variable}: expected at most {charter.lease_s_max}, the charter's lease_s_max, got {settings.lease_s}"]
        )
    secret = settings.passphrase.get_secret_value() if settings.passphrase else None
    passphrase = passphrase_from(value=secret, file=settings.passphrase_file)
    snapshot, timestamp, plan, library = (
        read_key(settings.keys_dir / f"{role}.pem", passphrase=passphrase)
        for role in ("snapshot", "timestamp", "plan", "library")
    )
    return Terms(
        signers=OnlineSigners(snapshot=snapshot, timestamp=timestamp, plan=plan, library=library),
        installation=Installation(node_id=OWN_NODE_ID, environment=charter.environment, production=settings.production),
        lease_s=settings.lease_s,
    )


@contextmanager
def _locked(state_dir: Path) -> Iterator[None]:
    """Own the state directory for as long as this process lives.

    Raises:
        StateLockedError: another process does.
    """
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (state_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateLockedError(
                f"expected {state_dir} to be free, got one that another control plane uses"
            ) from None
        yield


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


async def _save_nodes(fan_out: FanOut, store: SqliteStore) -> None:
    while True:
        await asyncio.sleep(SAVE_NODES_EVERY_S)
        if changed := fan_out.take_changed():
            await asyncio.to_thread(store.save_nodes, changed)


async def _warn(publisher: Publisher) -> None:
    while True:
        for warning in warnings_of(publisher):
            log.warning(Event.EXPIRY_NEAR, warning=warning)
        await asyncio.sleep(WARN_EVERY_S)


async def _forget_answers(store: SqliteStore) -> None:
    while True:
        await asyncio.to_thread(store.forget_answers, before=_now() - ANSWERS_KEPT)
        await asyncio.sleep(FORGET_EVERY_S)


def _readiness(publisher: Publisher, ready: asyncio.Event) -> Readiness:
    present = publisher.present
    return Readiness(
        ready=ready.is_set() and present.accepted.lease.expires > _now(),
        facts={
            "generation": present.number,
            "lease_expires": present.accepted.lease.expires.isoformat(),
            "templates": len(present.material.plan.entries),
        },
    )


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    main()
