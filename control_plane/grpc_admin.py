"""Templates and changes over gRPC: what authors and reviewers ask (`TemplateService`, `ChangeService`)."""

# ruff: noqa: N802 - names and signatures are those of the services

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any

import grpc.aio
from agentfactory.admin.v1 import admin_pb2 as pb
from agentfactory.admin.v1 import admin_pb2_grpc as rpc
from google.protobuf.message import Message

from control_plane import review
from control_plane.authorisation import ADMIN
from control_plane.change_desk import ChangeDesk
from control_plane.change_messages import (
    STATE_OF,
    STATES,
    change_to_proto,
    event_to_proto,
    reviewed_to_proto,
    time_of,
)
from control_plane.file_blobs import FileBlobs
from control_plane.grpc_mutations import Mutations
from control_plane.intake import Intake
from control_plane.library import Approved, Library
from control_plane.lifecycle import OPEN, Action, ChangeState
from control_plane.mutation import Ask
from control_plane.paging import fitting, page_size, position_of, token_of
from control_plane.publisher import Publisher, Reviewed
from control_plane.review import Change
from control_plane.sqlite_store import SqliteStore
from service.access.authority import Authority
from service.peer import peer_of
from service.telemetry import SpanName, Telemetry
from templates.names import TemplateName, TemplateRef, nearest
from templates.reasons import AgentFactoryError, Reason
from templates.resolved import BlobPin, ResolvedTemplate, read_resolved

PIECE_BYTES = 256 * 1024
HELD_MAX = 4096

Context = grpc.aio.ServicerContext[Any, Any]
ClosingRequest = pb.RejectChangeRequest | pb.WithdrawChangeRequest | pb.DeprecateChangeRequest | pb.RestoreChangeRequest


class InvalidRequestError(AgentFactoryError):
    """A request that no correct client sends."""

    reason = Reason.INVALID_REQUEST


class TemplateUnknownError(AgentFactoryError):
    """There is no published template, or version, of this name."""

    reason = Reason.TEMPLATE_UNKNOWN

    def __init__(self, name: str, library: Library) -> None:
        near = nearest(name, {str(each.ref.template_name) for each in library} | {str(each.ref) for each in library})
        super().__init__(
            f"expected a published template, got {name[:120]!r}"
            + (f"; did you mean {' or '.join(near)}?" if near else ""),
            metadata={"nearest": ",".join(near)},
        )


class TemplateService(rpc.TemplateServiceServicer):
    """Submission, and the library as people see it."""

    def __init__(
        self, *, intake: Intake, store: SqliteStore, publisher: Publisher, mutations: Mutations, authority: Authority
    ) -> None:
        self._authority = authority
        self._intake = intake
        self._store = store
        self._publisher = publisher
        self._mutations = mutations

    async def SubmitTemplate(
        self, request_iterator: AsyncIterator[pb.SubmitTemplateRequest], context: Context
    ) -> pb.Change:
        requests = aiter(request_iterator)
        first = await anext(requests, None)
        if first is None or not first.HasField("header"):
            raise InvalidRequestError("expected the header in the first message")
        header = first.header
        return await self._mutations.answer_stream(
            header,
            context,
            pb.Change,
            respond=lambda change: change_to_proto(change, self._publisher),
            work=lambda ask: self._intake.submit(
                author=ask.person,
                document=header.document,
                filename=header.filename,
                blobs=[BlobPin(sha256=blob.sha256.hex(), length=blob.length) for blob in header.blobs],
                pieces=_pieces(requests),
                request_id=ask.asked.request_id,
                is_draft=header.draft,
                ask=ask,
                permit=lambda domain: self._authority.require(
                    peer_of(context), f"{ADMIN}TemplateService/SubmitTemplate", domain=domain
                ),
            ),
        )

    async def GetTemplate(self, request: pb.GetTemplateRequest, context: Context) -> pb.Template:
        library, rules = self._publisher.present.material.library, self._publisher.rules()
        if "@" in request.name:
            found = library.get(TemplateRef.parse(request.name))
        else:
            found = library.newest(TemplateName.parse(request.name), rules.revocations)
        if found is None:
            raise TemplateUnknownError(request.name, library)
        self._authority.require(peer_of(context), f"{ADMIN}TemplateService/GetTemplate", domain=found.ref.domain)
        return await asyncio.to_thread(self._template, found)

    async def ListTemplates(self, request: pb.ListTemplatesRequest, context: Context) -> pb.ListTemplatesResponse:
        present, peer = self._publisher.present, peer_of(context)
        library, revocations = present.material.library, present.revocations
        wanted = sorted(
            (
                each
                for each in library
                if request.domain in {"", each.ref.domain}
                and self._authority.permits(peer, f"{ADMIN}TemplateService/ListTemplates", domain=each.ref.domain)
                and (not request.outdated or library.is_outdated(each, revocations))
            ),
            key=lambda each: each.ref,
        )
        start, size = position_of(request.page_token) or 0, page_size(request.page_size)
        page = await asyncio.to_thread(lambda: fitting(map(self._template, wanted[start : start + size])))
        end = start + len(page)
        return pb.ListTemplatesResponse(templates=page, next_page_token=token_of(end) if end < len(wanted) else "")

    def _template(self, approved: Approved) -> pb.Template:
        present = self._publisher.present
        change = self._store.change_of_version(approved.ref)
        state = self._publisher.state_of(approved.ref)
        resolved = approved.resolved
        return pb.Template(
            name=str(approved.ref),
            sha256=bytes.fromhex(approved.sha256),
            state=STATES[state] if state else pb.CHANGE_STATE_UNSPECIFIED,
            role=resolved.role,
            description=resolved.description,
            author=resolved.author,
            approvers=sorted(change.tally(present.charter, present.revocations).counted) if change else (),
            create_time=time_of(change.created_at) if change else None,
            resolved=approved.resolved_bytes,
            outdated=present.material.library.is_outdated(approved, present.revocations),
        )


class ChangeService(rpc.ChangeServiceServicer):
    """What reviewers see, sign and close, and what authors do with what they submitted."""

    def __init__(
        self,
        *,
        store: SqliteStore,
        blobs: FileBlobs,
        intake: Intake,
        publisher: Publisher,
        desk: ChangeDesk,
        mutations: Mutations,
        telemetry: Telemetry,
        authority: Authority,
    ) -> None:
        self._authority = authority
        self._store = store
        self._blobs = blobs
        self._intake = intake
        self._publisher = publisher
        self._desk = desk
        self._mutations = mutations
        self._telemetry = telemetry

    async def GetChange(self, request: pb.GetChangeRequest, context: Context) -> pb.Change:
        change = await self._change(request.name)
        self._authority.require(peer_of(context), f"{ADMIN}ChangeService/GetChange", domain=change.ref.domain)
        return change_to_proto(change, self._publisher)

    async def ListChanges(self, request: pb.ListChangesRequest, context: Context) -> pb.ListChangesResponse:
        size = page_size(request.page_size)
        states: Collection[ChangeState] = OPEN if request.waiting_for else ()
        if request.state:
            if request.state not in STATE_OF:
                raise InvalidRequestError(f"expected a state that this control plane knows, got {request.state}")
            states = {STATE_OF[request.state]}
        changes = await asyncio.to_thread(
            self._store.changes, states=states, before=position_of(request.page_token), limit=size + 1
        )
        page = fitting(change_to_proto(each, self._publisher) for each in changes[:size])
        more = len(changes) > len(page)
        token = token_of(changes[len(page) - 1].number) if more else ""
        if request.waiting_for:
            page = [each for each in page if request.waiting_for in each.waiting_for]
        peer, method = peer_of(context), f"{ADMIN}ChangeService/ListChanges"
        # A page may be shorter than was asked for (AIP-158): what is not this caller's to see is left out of it.
        seen = [each for each in page if self._authority.permits(peer, method, domain=each.template.partition("/")[0])]
        return pb.ListChangesResponse(changes=seen, next_page_token=token)

    async def ListChangeEvents(
        self, request: pb.ListChangeEventsRequest, context: Context
    ) -> pb.ListChangeEventsResponse:
        change, size = await self._change(request.name), page_size(request.page_size)
        self._authority.require(peer_of(context), f"{ADMIN}ChangeService/ListChangeEvents", domain=change.ref.domain)
        after = position_of(request.page_token) or 0
        events = await asyncio.to_thread(self._store.events, change.number, after=after, limit=size + 1)
        page = fitting(event_to_proto(each) for each in events[:size])
        more = len(events) > len(page)
        return pb.ListChangeEventsResponse(
            events=page, next_page_token=token_of(events[len(page) - 1].number) if more else ""
        )

    async def FetchChange(
        self, request: pb.FetchChangeRequest, context: Context
    ) -> AsyncIterator[pb.FetchChangeResponse]:
        if len(request.held_sha256) > HELD_MAX:
            raise InvalidRequestError(f"expected at most {HELD_MAX} held digests, got {len(request.held_sha256)}")
        change = await self._change(request.name)
        self._authority.require(peer_of(context), f"{ADMIN}ChangeService/FetchChange", domain=change.ref.domain)
        resolved = read_resolved(change.resolved)
        library = self._publisher.present.material.library
        image = library.image_of(resolved)
        active = self._active(change)
        active_image = library.image_of(active.resolved) if active else None
        held = {digest.hex() for digest in request.held_sha256}
        blobs = _unique(resolved, active.resolved if active else None, held=held)
        yield pb.FetchChangeResponse(
            header=pb.ChangeHeader(
                change=change_to_proto(change, self._publisher),
                document=change.document,
                resolved=change.resolved,
                parents=[parent.resolved_bytes for parent in library.ancestors(resolved)],
                image=image.resolved_bytes if image else b"",
                active=active.resolved_bytes if active else b"",
                blobs=[pb.BlobHeader(sha256=bytes.fromhex(pin.sha256), length=pin.length) for pin in blobs],
                active_image=active_image.resolved_bytes if active_image else b"",
                active_approval=active.envelope if active else b"",
            )
        )
        for pin in blobs:
            data = await asyncio.to_thread(self._blobs.read, pin.sha256)
            for start in range(0, len(data), PIECE_BYTES):
                piece = pb.BlobPiece(sha256=bytes.fromhex(pin.sha256), data=data[start : start + PIECE_BYTES])
                yield pb.FetchChangeResponse(piece=piece)

    async def ApproveChange(self, request: pb.ApproveChangeRequest, context: Context) -> pb.Change:
        number = await self._permitted(request.name, context, "ApproveChange")
        with self._telemetry.span(SpanName.CHANGE_APPROVE, {"change": request.name}):
            return await self._answer(
                request, context, lambda ask: self._publisher.approve(number, request.envelope, ask=ask)
            )

    async def RejectChange(self, request: pb.RejectChangeRequest, context: Context) -> pb.Change:
        return await self._close(request, context, Action.REJECT, "RejectChange")

    async def WithdrawChange(self, request: pb.WithdrawChangeRequest, context: Context) -> pb.Change:
        return await self._close(request, context, Action.WITHDRAW, "WithdrawChange")

    async def DeprecateChange(self, request: pb.DeprecateChangeRequest, context: Context) -> pb.Change:
        return await self._close(request, context, Action.DEPRECATE, "DeprecateChange")

    async def RestoreChange(self, request: pb.RestoreChangeRequest, context: Context) -> pb.Change:
        return await self._close(request, context, Action.RESTORE, "RestoreChange")

    async def CommentOnChange(self, request: pb.CommentOnChangeRequest, context: Context) -> pb.Change:
        number = await self._permitted(request.name, context, "CommentOnChange")
        return await self._answer(
            request,
            context,
            lambda ask: self._desk.comment(number, by=ask.person, text=request.text, ask=ask),
        )

    async def SubmitChange(self, request: pb.SubmitChangeRequest, context: Context) -> pb.Change:
        number = await self._permitted(request.name, context, "SubmitChange")
        return await self._mutations.answer(
            request,
            context,
            pb.Change,
            respond=lambda change: change_to_proto(change, self._publisher),
            work=lambda ask: self._intake.send_draft(number, by=ask.person, ask=ask),
        )

    async def _close(self, request: ClosingRequest, context: Context, action: Action, method: str) -> pb.Change:
        number = await self._permitted(request.name, context, method)
        return await self._answer(
            request,
            context,
            lambda ask: self._desk.close(number, action, by=ask.person, why=request.reason, ask=ask),
        )

    async def _answer(
        self, request: Message, context: Context, work: Callable[[Ask[Reviewed]], Awaitable[Reviewed]]
    ) -> pb.Change:
        return await self._mutations.answer(
            request,
            context,
            pb.Change,
            respond=lambda reviewed: reviewed_to_proto(reviewed, self._publisher),
            work=work,
        )

    async def _permitted(self, name: str, context: Context, method: str) -> int:
        """Return the number of a change in whose domain the caller may call ``method``."""
        change = await self._change(name)
        self._authority.require(peer_of(context), f"{ADMIN}ChangeService/{method}", domain=change.ref.domain)
        return change.number

    async def _change(self, name: str) -> Change:
        change = await asyncio.to_thread(self._store.change, review.change_number(name))
        if change is None:
            raise review.ChangeUnknownError(name)
        return change

    def _active(self, change: Change) -> Approved | None:
        material = self._publisher.present.material
        return next(
            (
                found
                for entry in material.plan.entries
                if entry.template.template_name == change.ref.template_name
                and (found := material.library.get(entry.template)) is not None
            ),
            None,
        )


async def _pieces(requests: AsyncIterator[pb.SubmitTemplateRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if not request.HasField("piece"):
            raise InvalidRequestError("expected pieces after the header, got another header")
        yield request.piece


def _unique(*templates: ResolvedTemplate | None, held: set[str]) -> list[BlobPin]:
    """Return the code of ``templates`` in order, without what is held and without repetition."""
    pins: dict[str, BlobPin] = {}
    for template in templates:
        if template is not None and template.code is not None:
            pins.update({pin.sha256: pin for pin in template.code.blobs() if pin.sha256 not in held | pins.keys()})
    return list(pins.values())
