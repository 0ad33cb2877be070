"""Templates and changes over gRPC: what authors and reviewers ask (`TemplateService`, `ChangeService`)."""

# ruff: noqa: N802, ARG002 - names and signatures are those of the services

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc.aio
from agentfactory.admin.v1 import admin_pb2 as pb
from agentfactory.admin.v1 import admin_pb2_grpc as rpc
from google.protobuf.timestamp_pb2 import Timestamp

from control_plane import review
from control_plane.authorisation import ADMIN
from control_plane.file_blobs import FileBlobs
from control_plane.intake import Intake
from control_plane.library import Approved, Library
from control_plane.paging import fitting, page_size, position_of, token_of
from control_plane.publisher import Publisher, Reviewed
from control_plane.review import Change, ChangeState
from control_plane.sqlite_store import SqliteStore
from service.access.authority import Authority
from service.peer import peer_identity, peer_of
from service.telemetry import SpanName, Telemetry
from templates.acceptance import Tally
from templates.names import TemplateName, TemplateRef, nearest
from templates.reasons import AgentFactoryError, Reason
from templates.resolved import BlobPin, ResolvedTemplate, read_resolved

PIECE_BYTES = 256 * 1024
HELD_MAX = 4096

Context = grpc.aio.ServicerContext[Any, Any]

_STATES = {state: pb.ChangeState.Value(f"CHANGE_STATE_{state}") for state in ChangeState}
_STATE_OF = {value: state for state, value in _STATES.items()}


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

    def __init__(self, *, intake: Intake, store: SqliteStore, publisher: Publisher, authority: Authority) -> None:
        self._authority = authority
        self._intake = intake
        self._store = store
        self._publisher = publisher

    async def SubmitTemplate(
        self, request_iterator: AsyncIterator[pb.SubmitTemplateRequest], context: Context
    ) -> pb.Change:
        requests = aiter(request_iterator)
        first = await anext(requests, None)
        if first is None or not first.HasField("header"):
            raise InvalidRequestError("expected the header in the first message")
        header = first.header
        change = await self._intake.submit(
            author=peer_identity(context).name,
            document=header.document,
            filename=header.filename,
            blobs=[BlobPin(sha256=blob.sha256.hex(), length=blob.length) for blob in header.blobs],
            pieces=_pieces(requests),
            request_id=header.request_id,
            validate_only=header.validate_only,
            permit=lambda domain: self._authority.require(
                peer_of(context), f"{ADMIN}TemplateService/SubmitTemplate", domain=domain
            ),
        )
        return change_to_proto(change, self._publisher)

    async def GetTemplate(self, request: pb.GetTemplateRequest, context: Context) -> pb.Template:
        library, rules = self._publisher.present.material.library, self._publisher.present.rules(self._publisher.now())
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
            state=_STATES[state] if state else pb.CHANGE_STATE_UNSPECIFIED,
            role=resolved.role,
            description=resolved.description,
            author=resolved.author,
            approvers=sorted(change.tally(present.charter, present.revocations).counted) if change else (),
            create_time=_time(change) if change else None,
            resolved=approved.resolved_bytes,
            outdated=present.material.library.is_outdated(approved, present.revocations),
        )


class ChangeService(rpc.ChangeServiceServicer):
    """What reviewers see, sign and close."""

    def __init__(
        self,
        *,
        store: SqliteStore,
        blobs: FileBlobs,
        publisher: Publisher,
        telemetry: Telemetry,
        authority: Authority,
    ) -> None:
        self._authority = authority
        self._store = store
        self._blobs = blobs
        self._publisher = publisher
        self._telemetry = telemetry

    async def GetChange(self, request: pb.GetChangeRequest, context: Context) -> pb.Change:
        change = await self._change(request.name)
        self._authority.require(peer_of(context), f"{ADMIN}ChangeService/GetChange", domain=change.ref.domain)
        return change_to_proto(change, self._publisher)

    async def ListChanges(self, request: pb.ListChangesRequest, context: Context) -> pb.ListChangesResponse:
        size = page_size(request.page_size)
        changes = await asyncio.to_thread(
            self._store.changes,
            state=_STATE_OF.get(request.state),
            before=position_of(request.page_token),
            limit=size + 1,
        )
        page = fitting(change_to_proto(each, self._publisher) for each in changes[:size])
        more = len(changes) > len(page)
        peer, method = peer_of(context), f"{ADMIN}ChangeService/ListChanges"
        return pb.ListChangesResponse(
            # A page may be shorter than was asked for (AIP-158): what is not this caller's to see is left out of it.
            changes=[
                shown
                for shown, each in zip(page, changes, strict=False)
                if self._authority.permits(peer, method, domain=each.ref.domain)
            ],
            next_page_token=token_of(changes[len(page) - 1].number) if more else "",
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
        with self._telemetry.span(SpanName.CHANGE_APPROVE, {"change": request.name}):
            reviewed = await self._publisher.approve(review.change_number(request.name), request.envelope)
        return change_to_proto(reviewed.change, self._publisher, reviewed)

    async def RejectChange(self, request: pb.RejectChangeRequest, context: Context) -> pb.Change:
        reviewed = await self._publisher.reject(
            review.change_number(request.name), by=peer_identity(context).name, why=request.reason
        )
        return change_to_proto(reviewed.change, self._publisher, reviewed)

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


def change_to_proto(change: Change, publisher: Publisher, reviewed: Reviewed | None = None) -> pb.Change:
    """Return ``change`` with the threshold and reviewers that the present charter gives it."""
    present = publisher.present
    tally: Tally | None = reviewed.tally if reviewed else None
    reviewers: Iterable[str] = ()
    if change.ref.domain in present.charter.domains:
        tally = tally or change.tally(present.charter, present.revocations)
        reviewers = review.reviewers_of(change, present.charter)
    warnings = list(change.warnings)
    if tally is not None and tally.above_ceiling:
        warnings.append(f"above the ceiling of {change.ref.domain}: {'; '.join(tally.above_ceiling)}")
    return pb.Change(
        name=change.name if change.number else "",
        state=_STATES[change.state] if change.number else pb.CHANGE_STATE_UNSPECIFIED,
        template=str(change.ref),
        sha256=bytes.fromhex(change.sha256),
        author=change.author,
        create_time=_time(change),
        statement=change.statement,
        threshold=tally.needed if tally else 0,
        approvers=sorted(tally.counted) if tally else (),
        reviewers=reviewers,
        reject_reason=change.reject_reason,
        generation=change.generation,
        warnings=warnings,
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


def _time(change: Change) -> Timestamp:
    return Timestamp(seconds=int(change.created_at.timestamp()))
