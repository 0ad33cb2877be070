"""Puts the parts of the audit log together, for main and for tests."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta

from securesystemslib.signer import Signer

from control_plane.audit_log import AuditLog, AuditTerms
from control_plane.audit_nodes import AuditNodes
from control_plane.audit_recorder import AuditRecorder
from control_plane.authorisation import roles_of
from control_plane.publisher import Publisher
from control_plane.settings import ControlPlaneSettings
from control_plane.sqlite_store import SqliteStore
from service.access.authority import Authority
from service.telemetry import Telemetry


@dataclass(frozen=True, slots=True, kw_only=True)
class Auditing:
    """``recorder`` observes calls, ``log`` keeps the chain, ``nodes`` hears what nodes have to do with it."""

    recorder: AuditRecorder
    log: AuditLog
    nodes: AuditNodes


async def start_auditing(
    stack: AsyncExitStack,
    settings: ControlPlaneSettings,
    store: SqliteStore,
    publisher: Publisher,
    telemetry: Telemetry,
    *,
    authority: Authority,
    signer: Signer,
    own: str,
    clock: Callable[[], datetime],
) -> Auditing:
    """Build them, and note the start. On leaving ``stack`` what was counted is written, and the end signed.

    Args:
        stack: of the process; ``store`` must be closed by it later.
        settings: how often is signed, and what is kept.
        store: where the log is.
        publisher: started.
        telemetry: of this process.
        authority: knows the roles of whoever calls.
        signer: the key of the role snapshot.
        own: URI of this control plane.
        clock: now.
    """
    recorder = AuditRecorder(
        store=store,
        telemetry=telemetry,
        clock=clock,
        roles_of=lambda peer: roles_of(peer, authority.standing(peer)),
    )
    audit_log = AuditLog(
        store=store,
        terms=AuditTerms(
            signer=signer,
            environment=publisher.present.charter.environment,
            own=own,
            checkpoint_every_s=settings.audit_checkpoint_s,
            retention=timedelta(days=settings.audit_retention_days),
        ),
        roots=lambda: publisher.present.material.trust.roots,
        telemetry=telemetry,
        clock=clock,
    )
    nodes = AuditNodes(store=store, recorder=recorder, keys=audit_log.keys, telemetry=telemetry)
    audit_log.announce = nodes.announce
    stack.push_async_callback(audit_log.close)
    stack.push_async_callback(recorder.close)
    await audit_log.start(generation=publisher.present.number)
    return Auditing(recorder=recorder, log=audit_log, nodes=nodes)
