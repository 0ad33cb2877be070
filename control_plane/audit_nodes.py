"""What nodes have to do with the audit log: they keep its checkpoints, and their own refusals stand in it (ADR 22).

A node says with Hello and every report which checkpoint it saw last. One that is of this log is answered with those
that follow it; one that is not shows that the log was rewritten, cut or replaced, and stands in the log from then on.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import Final

from securesystemslib.signer import SSlibKey

from control_plane import sqlite_audit
from control_plane.audit import Call, Decision, current_call
from control_plane.audit_recorder import AuditRecorder
from control_plane.fan_out import CheckpointsMessage, Stream
from control_plane.fleet import Refusal
from control_plane.sqlite_audit import StoredCheckpoint
from control_plane.sqlite_store import SqliteStore
from service.logs import get_logger
from service.telemetry import AUDIT_FORKS, Field, Telemetry
from templates.audit_checkpoint import LINKS_MAX, Checkpoint, read_checkpoint
from templates.audit_entry import Outcome
from templates.audit_verification import Witnessed
from templates.names import TemplateRef
from templates.reasons import AgentFactoryError, Reason

QUARANTINED_MAX: Final = 256
_STATES_TOLD: Final = frozenset({"DAMAGED", "UNISOLATED"})

log = get_logger("audit")


@unique
class Event(StrEnum):
    AUDIT_FORK_SEEN = "audit_fork_seen"


@dataclass(slots=True)
class _Known:
    """What is known of one node's stream."""

    document: bytes | None = None
    sequence: int = 0
    is_ours: bool = True
    state: str = ""
    quarantined: frozenset[str] = field(default_factory=frozenset)


class AuditNodes:
    """Runs in the event loop's thread; the records are read in others."""

    def __init__(
        self,
        *,
        store: SqliteStore,
        recorder: AuditRecorder,
        keys: Callable[[], Mapping[str, SSlibKey]],
        telemetry: Telemetry,
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._keys = keys
        self._streams: dict[Stream, _Known] = {}
        self._witnessed: dict[str, Checkpoint] = {}
        self._forked: set[str] = set()
        telemetry.measure(AUDIT_FORKS, lambda: float(len(self._forked)))

    def witnessed(self) -> list[Witnessed]:
        """Return the newest signed checkpoint of each node that has shown one to this process."""
        return [
            Witnessed(node=node, sequence=found.sequence, entry_sha256=found.entry_sha256)
            for node, found in sorted(self._witnessed.items())
        ]

    # Checkpoints

    async def joined(self, stream: Stream, document: bytes) -> None:
        """Take a node's Hello, if it keeps checkpoints."""
        self._streams[stream] = _Known()
        await self.echoed(stream, document)

    def left(self, stream: Stream) -> None:
        self._streams.pop(stream, None)

    async def echoed(self, stream: Stream, document: bytes) -> None:
        """Take the checkpoint that a node holds, and send what follows it."""
        known = self._streams.get(stream)
        if known is None or known.document == document:
            return
        known.document = document
        if document:
            try:
                seen = read_checkpoint(document).verify(self._keys())
            except AgentFactoryError as error:
                known.is_ours = False
                decision = Decision(action="AuditLog/RefuseCheckpoint", outcome=Outcome.REFUSED, code=str(error.reason))
                await self._note(stream, decision)
                return
            self._witnessed[stream.node] = seen
            found = await asyncio.to_thread(self._find, seen.digest)
            known.sequence, known.is_ours = seen.sequence, found is not None
            if found is None:
                await self._fork(stream, seen)
                return
            self._forked.discard(stream.node)
        await self._send_following(stream, known)

    def announce(self, _newest: StoredCheckpoint) -> None:
        """Send a checkpoint that was just signed to every node that keeps them."""
        for stream, known in list(self._streams.items()):
            if known.is_ours:
                self._recorder.in_background(self._send_following(stream, known))

    async def _send_following(self, stream: Stream, known: _Known) -> None:
        following = await asyncio.to_thread(self._following, known.sequence)
        if following:
            stream.put(CheckpointsMessage(documents=tuple(each.document for each in following)))

    def _following(self, sequence: int) -> Sequence[StoredCheckpoint]:
        with self._store.reading() as connection:
            if sequence:
                return sqlite_audit.checkpoints_after(connection, sequence, limit=LINKS_MAX)
            newest = sqlite_audit.newest_checkpoint(connection)
            return () if newest is None else (newest,)

    def _find(self, sha256: str) -> StoredCheckpoint | None:
        with self._store.reading() as connection:
            return sqlite_audit.checkpoint_of(connection, sha256)

    async def _fork(self, stream: Stream, seen: Checkpoint) -> None:
        self._forked.add(stream.node)
        log.error(Event.AUDIT_FORK_SEEN, **{Field.NODE: stream.node}, sequence=seen.sequence)
        await self._note(
            stream,
            Decision(
                action="AuditLog/FindFork",
                outcome=Outcome.FAILED,
                code=str(Reason.AUDIT_FORKED),
                digests={"checkpoint": seen.digest, "entry": seen.entry_sha256},
                details={"sequence": str(seen.sequence)},
            ),
        )

    # What nodes decide

    async def refused(self, stream: Stream, refusal: Refusal) -> None:
        """Note that a node did not take a generation. Its message is not kept: it may quote anything."""
        await self._note(
            stream,
            Decision(
                action="Node/RefuseGeneration",
                outcome=Outcome.REFUSED,
                code=_known_reason(refusal.reason),
                details={
                    "generation": str(refusal.generation),
                    "phase": refusal.phase,
                    "template": _known_template(refusal.template),
                },
            ),
        )

    async def reported(self, stream: Stream, *, state: str, quarantined: Sequence[str]) -> None:
        """Note what a node put into quarantine since its last report, and a state in which it serves nothing."""
        known = self._streams.get(stream)
        if known is None:
            return
        held = frozenset(list(quarantined)[:QUARANTINED_MAX])
        added, known.quarantined = held - known.quarantined, held
        for template in sorted(added):
            await self._note(
                stream,
                Decision(
                    action="Node/Quarantine",
                    outcome=Outcome.REFUSED,
                    code=str(Reason.TEMPLATE_QUARANTINED),
                    details={"template": _known_template(template)},
                ),
            )
        if state != known.state and state in _STATES_TOLD:
            await self._note(
                stream, Decision(action="Node/StopServing", outcome=Outcome.REFUSED, details={"state": state})
            )
        known.state = state

    async def _note(self, stream: Stream, decision: Decision) -> None:
        call = current_call() or Call()
        await self._recorder.note(
            Call(
                principal=call.principal,
                roles=call.roles,
                address=call.address,
                action=call.action,
                resource=f"nodes/{stream.node}",
            ),
            decision,
        )


def _known_reason(reason: str) -> str:
    return reason if reason in Reason.__members__ else str(Reason.INTERNAL)


def _known_template(text: str) -> str:
    """Return a template's reference or digest; nothing else that a node says is kept."""
    try:
        return str(TemplateRef.parse(text))
    except AgentFactoryError:
        is_digest = len(text) == 64 and not set(text) - set("0123456789abcdef")
        return text if is_digest else ""
