"""Keeps the audit log: signs checkpoints, lets old entries go, hands it out whole, and verifies it (ADR 22)."""

import asyncio
import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum, unique
from typing import Final

from securesystemslib.signer import Signer, SSlibKey
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from control_plane import sqlite_audit
from control_plane.audit import Call, Decision, acting
from control_plane.sqlite_audit import Stored, StoredCheckpoint, Wanted
from control_plane.sqlite_store import SqliteStore
from service.logs import get_logger
from service.telemetry import AUDIT_CHECKPOINT, Field, Telemetry
from templates.audit_checkpoint import Checkpoint, keys_of_chain, sign_checkpoint
from templates.audit_entry import NOTHING_BEFORE, RETENTION_ACTION, Outcome
from templates.audit_verification import ChainVerifier, Verdict, Witnessed
from templates.canonical import JsonObject, canonical_bytes
from templates.reasons import Reason

BATCH: Final = 500
REMOVE_EVERY_S: Final = 3600.0

log = get_logger("audit")


@unique
class Event(StrEnum):
    AUDIT_BROKEN = "audit_broken"
    AUDIT_CHECKPOINT_SIGNED = "audit_checkpoint_signed"
    AUDIT_NOT_SIGNED = "audit_not_signed"
    AUDIT_ENTRIES_REMOVED = "audit_entries_removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditTerms:
    """How the log is kept: signed by whom, how often, for how long."""

    signer: Signer
    environment: str
    own: str
    checkpoint_every_s: float
    retention: timedelta


class AuditLog:
    """Call `start` once, before anything is decided. What blocks runs in threads."""

    def __init__(
        self,
        *,
        store: SqliteStore,
        terms: AuditTerms,
        roots: Callable[[], Sequence[bytes]],
        telemetry: Telemetry,
        clock: Callable[[], datetime],
    ) -> None:
        """``roots`` gives the pinned root and every later one, oldest first."""
        self._store = store
        self._terms = terms
        self._roots = roots
        self._telemetry = telemetry
        self._clock = clock
        self._signing = asyncio.Lock()
        self.announce: Callable[[StoredCheckpoint], None] = lambda _checkpoint: None

    async def start(self, *, generation: int) -> None:
        """Note the start, and look whether the end of the log is as it was left."""
        await asyncio.to_thread(self._start, generation)
        await self.sign()

    def _start(self, generation: int) -> None:
        facts = {"generation": str(generation)}
        with self._store.reading() as connection:
            covered = sqlite_audit.newest_checkpoint(connection)
            kept = None if covered is None else sqlite_audit.entry(connection, covered.sequence)
        resource = f"environments/{self._terms.environment}"
        decisions = [Decision(action="ControlPlane/Start", details=facts, resource=resource)]
        broken = self._broken_end(covered, kept)
        if broken:
            log.error(Event.AUDIT_BROKEN, **{Field.ERROR: broken})
            decisions.insert(
                0,
                Decision(
                    action="AuditLog/FindBroken",
                    outcome=Outcome.FAILED,
                    code=str(Reason.AUDIT_FORKED),
                    details={"found": broken},
                ),
            )
        self._write_own(decisions)

    def _broken_end(self, covered: StoredCheckpoint | None, kept: Stored | None) -> str:
        if covered is None:
            return ""
        verifier = ChainVerifier(self.keys())
        verifier.checkpoint(covered.document)
        verdict = verifier.finish()
        if verdict.checkpoint is None:
            return f"the checkpoint of entry {covered.sequence} is not signed by a key of this installation"
        if kept is None or kept.sha256 != verdict.checkpoint.entry_sha256:
            return f"entry {covered.sequence} is not the one that was signed: run agentctl audit verify"
        return ""

    def _write_own(self, decisions: Iterable[Decision]) -> None:
        with acting(Call(principal=self._terms.own)), self._store.writing() as connection:
            self._store.record(connection, *decisions)

    def keys(self) -> dict[str, SSlibKey]:
        """Return the keys that may have signed checkpoints of this log."""
        roots = self._roots()
        return dict(keys_of_chain(roots[0], roots))

    # Checkpoints

    async def sign(self) -> StoredCheckpoint | None:
        """Sign the newest entry if that has not been done; return the newest checkpoint."""
        async with self._signing:
            made, newest = await asyncio.to_thread(self._sign)
        if made and newest is not None:
            self._telemetry.gauge(AUDIT_CHECKPOINT, newest.sequence)
            log.debug(Event.AUDIT_CHECKPOINT_SIGNED, sequence=newest.sequence)
            self.announce(newest)
        return newest

    def _sign(self) -> tuple[bool, StoredCheckpoint | None]:
        with self._store.writing() as connection:
            head, before = sqlite_audit.head(connection), sqlite_audit.newest_checkpoint(connection)
            if head.sequence <= (0 if before is None else before.sequence):
                return False, before
            checkpoint = Checkpoint(
                environment=self._terms.environment,
                sequence=head.sequence,
                entry_sha256=head.sha256,
                previous=NOTHING_BEFORE if before is None else before.sha256,
                time=self._clock().replace(microsecond=0),
            )
            document = sign_checkpoint(checkpoint, self._terms.signer)
            sqlite_audit.add_checkpoint(connection, checkpoint, document)
        return True, StoredCheckpoint(sequence=head.sequence, sha256=checkpoint.digest, document=document)

    async def keep(self) -> None:
        """Sign, and let old entries go, from time to time, until cancelled."""
        loop = asyncio.get_running_loop()
        remove_at = loop.time()
        while True:
            try:
                if loop.time() >= remove_at:
                    await self.remove_old()
                    remove_at = loop.time() + REMOVE_EVERY_S
                await self.sign()
            except SQLAlchemyError as error:  # a full disk: whoever changes something is told; this is tried again
                log.warning(Event.AUDIT_NOT_SIGNED, **{Field.ERROR: str(error).splitlines()[0]})
            await asyncio.sleep(self._terms.checkpoint_every_s)

    async def close(self) -> None:
        """Sign what was written last, if that can be done."""
        try:
            await self.sign()
        except SQLAlchemyError as error:
            log.warning(Event.AUDIT_NOT_SIGNED, **{Field.ERROR: str(error).splitlines()[0]})

    # Retention

    async def remove_old(self) -> int:
        """Let entries go that are older than retention says, up to a checkpoint that stands for them; return how many.

        The entry that says so, and the removal, are one transaction.
        """
        removed = await asyncio.to_thread(self._remove_old)
        if removed:
            await self.sign()
        return removed

    def _remove_old(self) -> int:
        days = str(self._terms.retention.days)
        with acting(Call(principal=self._terms.own)), self._store.writing() as connection:
            standing = sqlite_audit.removable(connection, before=self._clock() - self._terms.retention)
            if standing is None:
                return 0
            self._store.record(
                connection,
                Decision(
                    action=RETENTION_ACTION,
                    resource=f"auditEntries/{standing.sequence}",
                    digests={"checkpoint": standing.sha256},
                    details={"through": str(standing.sequence), "retention_days": days},
                ),
            )
            removed = sqlite_audit.remove(connection, standing.sequence)
        log.info(Event.AUDIT_ENTRIES_REMOVED, removed=removed, through=standing.sequence)
        return removed

    # The whole

    def export(self, newest: StoredCheckpoint | None, wanted: Wanted) -> Iterator[bytes]:
        """Give the export line by line, in pieces of many lines: a header, entries, and checkpoints behind them.

        Blocks between pieces. Entries beyond ``newest`` are left for the next export. With ``wanted`` it is an extract:
        matching entries alone.
        """
        header: JsonObject = {
            "audit_export": 1,
            "environment": self._terms.environment,
            "extract": not wanted.is_everything,
            "roots": [base64.b64encode(root).decode() for root in self._roots()],
            "checkpoint": "" if newest is None else newest.document.decode(),
        }
        yield canonical_bytes(header) + b"\n"
        until = 0 if newest is None else newest.sequence
        if wanted.is_everything:
            for piece in self._pieces(until):
                yield b"".join(line + b"\n" for line, _ in piece)
            return
        before: int | None = until + 1
        while True:
            with self._store.reading() as connection:
                page = sqlite_audit.entries(connection, wanted, before=before, limit=BATCH)
            if not page:
                return
            before = page[-1].sequence
            yield "".join(f"{each.line}\n" for each in page).encode()

    def _pieces(self, until: int) -> Iterator[list[tuple[bytes, bool]]]:
        """Give lines in their order, and whether each is a checkpoint; every piece is one look at the records."""
        after = covered = 0
        while after < until:
            with self._store.reading() as connection:
                page = sqlite_audit.entries_after(connection, after, limit=BATCH)
                upto = min(page[-1].sequence, until) if page else until
                checkpoints = _all_checkpoints(connection, covered, upto)
            yield list(_merged([each for each in page if each.sequence <= until], checkpoints))
            after = covered = upto

    async def verify(self, witnessed: Sequence[Witnessed]) -> tuple[Verdict, StoredCheckpoint | None]:
        """Sign, and verify the whole log as it is on the disk now, against what nodes hold as well."""
        newest = await self.sign()
        return await asyncio.to_thread(self._verify, newest, witnessed), newest

    def _verify(self, newest: StoredCheckpoint | None, witnessed: Sequence[Witnessed]) -> Verdict:
        until = 0 if newest is None else newest.sequence
        verifier = ChainVerifier(self.keys(), witnessed)
        for piece in self._pieces(until):
            for line, is_checkpoint in piece:
                (verifier.checkpoint if is_checkpoint else verifier.entry)(line)
        return verifier.finish(newest=None if newest is None else newest.document)


def _all_checkpoints(connection: Connection, after: int, upto: int) -> list[StoredCheckpoint]:
    found: list[StoredCheckpoint] = []
    while page := sqlite_audit.checkpoints_after(connection, after, limit=BATCH):
        found += [each for each in page if each.sequence <= upto]
        after = page[-1].sequence
        if after >= upto:
            break
    return found


def _merged(page: Sequence[Stored], checkpoints: Sequence[StoredCheckpoint]) -> Iterator[tuple[bytes, bool]]:
    """Give entries with their checkpoints behind them; first those that stand for what retention removed."""
    first = page[0].sequence if page else 0
    waiting = list(checkpoints)
    while waiting and (not page or waiting[0].sequence < first):
        yield waiting.pop(0).document, True
    for each in page:
        yield each.line.encode(), False
        while waiting and waiting[0].sequence <= each.sequence:
            yield waiting.pop(0).document, True
    for left in waiting:
        yield left.document, True
