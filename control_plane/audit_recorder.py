"""Notes who calls, and writes what handlers cannot: refusals, and calls that changed nothing (ADR 22).

A refusal is on the disk before its caller hears of it. Entries that wait at the same time share one transaction.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum, unique
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import unquote

import grpc
from sqlalchemy.exc import SQLAlchemyError

from control_plane import sqlite_audit
from control_plane.audit import Call, Decision, begin, current_call, resource_name
from control_plane.refusals import Refusals, Summary
from control_plane.sqlite_store import SqliteStore
from service.guard_ports import Context
from service.logs import get_logger
from service.peer import Peer
from service.status import STATUS
from service.telemetry import AUDIT_FAILURES, Field, Telemetry, current_trace_id
from templates.audit_entry import Outcome
from templates.reasons import AgentFactoryError

FLOOD_WINDOW: Final = timedelta(seconds=60)
SUMMARISE_EVERY_S: Final = 1.0
BATCH_MAX: Final = 256

_JUDGEMENTS_ON_READING: Final = frozenset(
    {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.RESOURCE_EXHAUSTED}
)
_FAILURES: Final = frozenset(
    {
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.UNKNOWN,
    }
)

log = get_logger("audit")


@unique
class Event(StrEnum):
    AUDIT_FAILED = "audit_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    call: Call
    decision: Decision
    count: int
    since: datetime | None
    written: "asyncio.Future[None]"


class AuditRecorder:
    """The guard's observer of calls (`service.guard_ports.CallObserver`).

    Args:
        store: where the log is.
        telemetry: of this process.
        clock: now.
        roles_of: which roles a caller has, as far as this process knows.
    """

    def __init__(
        self,
        *,
        store: SqliteStore,
        telemetry: Telemetry,
        clock: Callable[[], datetime],
        roles_of: Callable[[Peer], Sequence[str]],
    ) -> None:
        self._store = store
        self._telemetry = telemetry
        self._clock = clock
        self._roles_of = roles_of
        self._refusals = Refusals(window=FLOOD_WINDOW)
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()

    # What the guard says

    def begun(self, method: str, context: Context) -> None:
        """Note what is called, and from where: everything that is decided in this task from now on is this call's."""
        begin(Call(address=address_of(context.peer()), action=action_of(method)))

    def identified(self, peer: Peer) -> None:
        """Note who calls; of a call that is refused before, nothing but its address is known."""
        if (call := current_call()) is not None:
            call.principal, call.roles = peer.uri, tuple(self._roles_of(peer))

    async def answered(self) -> None:
        """See to it that no call that may change something leaves without an entry."""
        call = current_call()
        if call is None or call.recorded or reads(call.action):
            return
        await self._write(replace(call, trace_id=current_trace_id()), Decision(outcome=Outcome.UNCHANGED))

    async def effect(self, decision: Decision) -> None:
        """Write what the call that is being answered did to something that lies outside of the database.

        Raises:
            SQLAlchemyError: it could not be written; what was done stays done.
        """
        call = current_call() or Call()
        await self._write(replace(call, trace_id=current_trace_id()), decision)
        call.recorded += 1

    async def refused(self, failure: AgentFactoryError, request: Any, *, trace_id: str) -> None:
        """Write or count a refusal. Its text is not kept: it may quote what was sent."""
        call = current_call()
        if call is None:
            return
        status = STATUS[failure.reason]
        if reads(call.action) and status not in _JUDGEMENTS_ON_READING:
            return
        call = replace(call, trace_id=trace_id, resource=call.resource or _resource_of(request))
        outcome = Outcome.FAILED if status in _FAILURES else Outcome.REFUSED
        await self.note(call, Decision(outcome=outcome, code=str(failure.reason)))

    async def note(self, call: Call, decision: Decision) -> None:
        """Write what was refused, or count it when it is one of a flood. Never raises: a refusal stays one."""
        write, summaries = self._refusals.refused(call, decision, now=self._clock())
        await self._write_summaries(summaries)
        if write:
            await self._try_to_write(call, decision)

    # Background

    async def summarise(self) -> None:
        """Write the summaries of floods when they are due, until cancelled."""
        while True:
            await asyncio.sleep(SUMMARISE_EVERY_S)
            await self._write_summaries(self._refusals.due(now=self._clock()))

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` to its end, and wait for it when closing."""
        running = asyncio.ensure_future(work)
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """Write what was counted, and wait for what is being written."""
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._write_summaries(self._refusals.close())
        if self._writing is not None:
            await self._writing

    async def _write_summaries(self, summaries: Sequence[Summary]) -> None:
        for each in summaries:
            await self._try_to_write(each.call, each.decision, count=each.count, since=each.since)

    async def _try_to_write(
        self, call: Call, decision: Decision, *, count: int = 1, since: datetime | None = None
    ) -> None:
        try:
            await self._write(call, decision, count=count, since=since)
        except SQLAlchemyError as error:  # a full disk: what was refused stays refused
            self._telemetry.count(AUDIT_FAILURES)
            log.error(  # noqa: TRY400 -- an expected error
                Event.AUDIT_FAILED, **{Field.PEER: call.principal, Field.ERROR: str(error).splitlines()[0]}
            )

    async def _write(self, call: Call, decision: Decision, *, count: int = 1, since: datetime | None = None) -> None:
        """Have one entry written; return once it is on the disk, even if the caller is cancelled meanwhile."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(call=call, decision=decision, count=count, since=since, written=written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.ensure_future(self._write_waiting())
        await asyncio.shield(written)

    async def _write_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
            try:
                await asyncio.to_thread(self._append, batch)
            except SQLAlchemyError as error:
                for each in batch:
                    each.written.set_exception(error)
                    each.written.exception()  # whoever waited may be gone
            else:
                for each in batch:
                    each.written.set_result(None)

    def _append(self, batch: Sequence[_Waiting]) -> None:
        with self._store.writing() as connection:
            for each in batch:
                sqlite_audit.append(
                    connection, each.decision, call=each.call, at=self._clock(), count=each.count, since=each.since
                )


@lru_cache(maxsize=512)
def action_of(method: str) -> str:
    """Return ``Service/Method`` of "/package.Service/Method"."""
    service, _, name = method[1:].partition("/")
    return f"{service.rpartition('.')[2]}/{name}"


_READING: Final = ("Get", "List", "Fetch", "Search", "Watch", "Check", "Explain", "Test", "Validate", "Diff", "Export")


@lru_cache(maxsize=512)
def reads(action: str) -> bool:
    """Whether ``Service/Method`` changes nothing, by its verb (AIP-130 and following); Subscribe is what nodes hear."""
    verb = action.rpartition("/")[2]
    return verb.startswith(_READING) or verb in {"Subscribe", "VerifyAudit"}


def address_of(peer: str) -> str:
    """Return the IP address in what grpc calls a peer ("ipv4:127.0.0.1:5000", "ipv6:%5B::1%5D:5000"), or ""."""
    return _address_of_host(peer.partition(":")[2].rpartition(":")[0])


@lru_cache(maxsize=4096)
def _address_of_host(host: str) -> str:
    try:
        return str(ip_address(unquote(host).strip("[]").partition("%")[0]))
    except ValueError:
        return ""


def _resource_of(request: Any) -> str:
    """Return the name that a request asks about, where it has the form of one."""
    name = getattr(request, "name", "")
    return resource_name(name) if isinstance(name, str) else ""
