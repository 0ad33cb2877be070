"""The audit log over gRPC: what auditors ask (`AuditService`)."""

# ruff: noqa: N802, ARG002 - names and signatures are those of the services

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import grpc.aio
from agentfactory.admin.v1 import audit_pb2 as pb
from agentfactory.admin.v1 import audit_pb2_grpc as rpc
from google.protobuf.timestamp_pb2 import Timestamp

from control_plane import sqlite_audit
from control_plane.audit_log import AuditLog
from control_plane.audit_nodes import AuditNodes
from control_plane.authorisation import ADMIN
from control_plane.paging import fitting, page_size, position_of, token_of
from control_plane.sqlite_audit import Stored, Wanted
from control_plane.sqlite_store import SqliteStore
from service.access.authority import Authority
from service.access.roles import ANY
from service.peer import peer_of
from templates.audit_entry import Outcome
from templates.reasons import AgentFactoryError, Reason

TEXT_CHARACTERS_MAX = 512
_PREFIX = "auditEntries/"

Context = grpc.aio.ServicerContext[Any, Any]


class InvalidFilterError(AgentFactoryError):
    """A filter that no entry can match."""

    reason = Reason.INVALID_REQUEST


class AuditEntryUnknownError(AgentFactoryError):
    """The log has no entry of this number (any more)."""

    reason = Reason.AUDIT_UNKNOWN

    def __init__(self, name: str) -> None:
        super().__init__(f"expected the name of an entry, {_PREFIX}<number>, got {name[:80]!r}")


class AuditService(rpc.AuditServiceServicer):
    """Reads; nothing here changes what the log says."""

    def __init__(self, *, store: SqliteStore, audit_log: AuditLog, nodes: AuditNodes, authority: Authority) -> None:
        self._authority = authority
        self._store = store
        self._log = audit_log
        self._nodes = nodes

    async def ListAuditEntries(
        self, request: pb.ListAuditEntriesRequest, context: Context
    ) -> pb.ListAuditEntriesResponse:
        self._require(context, "ListAuditEntries")
        size, before, wanted = page_size(request.page_size), position_of(request.page_token), wanted_of(request.filter)
        found = await asyncio.to_thread(self._page, wanted, before, size + 1)
        page = fitting(_entry(each) for each in found[:size])
        more = len(found) > len(page)
        return pb.ListAuditEntriesResponse(
            entries=page, next_page_token=token_of(found[len(page) - 1].sequence) if more else ""
        )

    async def GetAuditEntry(self, request: pb.GetAuditEntryRequest, context: Context) -> pb.AuditEntry:
        self._require(context, "GetAuditEntry")
        digits = request.name.removeprefix(_PREFIX)
        if digits == request.name or not digits.isascii() or not digits.isdigit() or len(digits) > 18:
            raise AuditEntryUnknownError(request.name)
        found = await asyncio.to_thread(self._entry, int(digits))
        if found is None:
            raise AuditEntryUnknownError(request.name)
        return _entry(found)

    async def ExportAudit(
        self, request: pb.ExportAuditRequest, context: Context
    ) -> AsyncIterator[pb.ExportAuditResponse]:
        self._require(context, "ExportAudit")
        wanted = wanted_of(request.filter)
        pieces = self._log.export(await self._log.sign(), wanted)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            if piece:
                yield pb.ExportAuditResponse(lines=piece)

    async def VerifyAudit(self, request: pb.VerifyAuditRequest, context: Context) -> pb.VerifyAuditResponse:
        self._require(context, "VerifyAudit")
        witnessed = self._nodes.witnessed()
        verdict, newest = await self._log.verify(witnessed)
        return pb.VerifyAuditResponse(
            entries=verdict.entries,
            first=verdict.first,
            last=verdict.last,
            checkpoint=b"" if newest is None else newest.document,
            nodes=[each.node for each in witnessed],
            findings=[
                pb.AuditFinding(kind=str(each.kind), first=each.first, last=each.last, message=each.message)
                for each in verdict.findings
            ],
        )

    def _require(self, context: Context, method: str) -> None:
        """The log is one for all domains and tenants: who reads it holds the role everywhere."""
        self._authority.require(peer_of(context), f"{ADMIN}AuditService/{method}", domain=ANY, tenant=ANY)

    def _page(self, wanted: Wanted, before: int | None, limit: int) -> list[Stored]:
        with self._store.reading() as connection:
            return sqlite_audit.entries(connection, wanted, before=before, limit=limit)

    def _entry(self, sequence: int) -> Stored | None:
        with self._store.reading() as connection:
            return sqlite_audit.entry(connection, sequence)


def wanted_of(message: pb.AuditFilter) -> Wanted:
    """Read a filter.

    Raises:
        InvalidFilterError: an outcome that is none, a time that is none, or a text that is too long.
    """
    if message.outcome and message.outcome not in Outcome.__members__:
        raise InvalidFilterError(f"expected one of {', '.join(Outcome)}, got {message.outcome[:40]!r}")
    texts = {name: getattr(message, name) for name in ("principal", "action", "resource", "outcome", "code")}
    for name, text in texts.items():
        if len(text) > TEXT_CHARACTERS_MAX:
            raise InvalidFilterError(f"expected at most {TEXT_CHARACTERS_MAX} characters in {name}, got {len(text)}")
    return Wanted(
        **texts,
        since=_moment(message.since) if message.HasField("since") else None,
        until=_moment(message.until) if message.HasField("until") else None,
    )


def _moment(at: Timestamp) -> datetime:
    try:
        return at.ToDatetime(UTC)
    except ValueError as error:
        raise InvalidFilterError(f"expected a time, got {error}") from None


def _entry(stored: Stored) -> pb.AuditEntry:
    return pb.AuditEntry(name=f"{_PREFIX}{stored.sequence}", line=stored.line, sha256=bytes.fromhex(stored.sha256))
