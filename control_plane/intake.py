"""Takes submissions in: bytes checked, module inspected, change derived, everything durable, then answered."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from control_plane import review
from control_plane.audit import about
from control_plane.file_blobs import FileBlobs
from control_plane.lifecycle import Action, rule_for
from control_plane.mutation import Ask, unasked
from control_plane.policy_gate import Moment, PolicyGate
from control_plane.publisher import Publisher
from control_plane.review import Change
from control_plane.sqlite_store import SqliteStore
from control_plane.submission import (
    Prepared,
    Submission,
    SubmissionRefusedError,
    check_code,
    derive_change,
    is_same,
    prepare,
    raise_version_exists,
    read_submission,
    require_same,
    require_same_request,
    submission_of,
)
from control_plane.turns import Turns
from service.telemetry import SpanName, Telemetry
from templates.canonical import canonical_bytes
from templates.capabilities import ModuleReport
from templates.document import Template
from templates.reasons import Reason
from templates.resolved import BlobPin
from templates.strict_json import read_canonical

PIECE_BYTES_MAX = 256 * 1024
PIECE_TIMEOUT_S = 60.0
CODE_TIMEOUT_S = 600.0
"""For everything that one submission sends: whoever sends a byte a minute does not keep the room of others."""
AT_ONCE_MAX = 4
_REPORT_BYTES_MAX = 16 << 20

Inspect = Callable[[bytes], Awaitable[ModuleReport]]


@dataclass(frozen=True, slots=True)
class _Received:
    """What is stored with a change."""

    submission: Submission
    template: Template
    code: tuple[bytes, ...]
    report: ModuleReport | None


class Intake:
    """At most `AT_ONCE_MAX` submissions hold their code in memory at the same time; others wait."""

    def __init__(
        self,
        *,
        store: SqliteStore,
        blobs: FileBlobs,
        inspect: Inspect,
        publisher: Publisher,
        policy: PolicyGate,
        turns: Turns,
        telemetry: Telemetry,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._inspect = inspect
        self._publisher = publisher
        self._policy = policy
        self._turns = turns
        self._telemetry = telemetry
        self._room = asyncio.Semaphore(AT_ONCE_MAX)

    async def submit(
        self,
        *,
        author: str,
        document: bytes,
        filename: str,
        blobs: Sequence[BlobPin],
        pieces: AsyncIterator[bytes],
        request_id: str = "",
        is_draft: bool = False,
        ask: Ask[Change] | None = None,
        permit: Callable[[str], None] = lambda _domain: None,
    ) -> Change:
        """Make a change of what ``author`` sent, or return the one that the same bytes made before.

        A draft of the author's own gives way to what they send of the same version.

        Args:
            author: person id from the caller's certificate.
            document: as written.
            filename: for messages.
            blobs: announced digests and lengths.
            pieces: the blobs' bytes, one after the other, at most `PIECE_BYTES_MAX` each.
            request_id: the same id and content give the same change, however often.
            is_draft: for its author to look at; nobody reviews it before `send_draft`.
            ask: with ``validate_only``, everything is derived and nothing stored; the change has number 0.
            permit: raises when the author may not propose anything for the domain that is given to it.

        Raises:
            AgentFactoryError: see `control_plane.submission`; nothing is stored then.
        """
        template = read_submission(document, blobs, filename=filename, request_id=request_id)
        about(f"templates/{template.ref}")
        permit(template.ref.domain)
        async with self._room:
            with self._telemetry.span(SpanName.CHANGE_SUBMIT, {"template": str(template.ref)}):
                code = await _receive_all(blobs, pieces)
                submission = Submission(
                    author=author,
                    document=document,
                    filename=filename,
                    blob=blobs[0] if blobs else None,
                    request_id=request_id,
                    is_draft=is_draft,
                )
                asked: Ask[Change] = ask or unasked(author)
                existing = await asyncio.to_thread(self._existing, submission, template)
                if existing is None:
                    for data in code:
                        check_code(template, data)
                    change, report = await self._derive(submission, template, code, validate_only=asked.validate_only)
                    if asked.validate_only:
                        return change
                    received = _Received(submission, template, tuple(code), report)
                    return await self._turns.take(lambda: self._keep(change, received, asked))
                return await self._turns.take(lambda: self._again(existing, asked))

    async def send_draft(self, number: int, *, by: str, ask: Ask[Change] | None = None) -> Change:
        """Put a draft into review, resolved and derived anew: its parents and its image may have moved on.

        Raises:
            AgentFactoryError: it is no draft, not this person's, or cannot become a change today.
        """
        asked: Ask[Change] = ask or unasked(by)
        draft = await self._draft(number, by, asked)
        submission, template = await asyncio.to_thread(submission_of, draft)
        async with self._room:
            with self._telemetry.span(SpanName.CHANGE_SUBMIT, {"template": str(draft.ref)}):
                change, _ = await self._derive(submission, template, (), validate_only=asked.validate_only)
        return await self._turns.take(lambda: self._send(number, change, by, asked))

    async def _send(self, number: int, derived: Change, by: str, asked: Ask[Change]) -> Change:
        present = self._publisher.present
        draft = await self._draft(number, by, asked)
        taken = await asyncio.to_thread(self._store.change_of_version, draft.ref)
        if taken is not None:
            raise_version_exists(taken)
        step = review.submitted(draft, derived, by=by, charter=present.charter, revocations=present.revocations)
        if not asked.validate_only:
            await asyncio.to_thread(self._store.save_step, step, answered=asked.answered(step.change, step.at))
        return step.change

    async def _draft(self, number: int, by: str, asked: Ask[Change]) -> Change:
        present = self._publisher.present
        draft = await asyncio.to_thread(self._store.change, number)
        if draft is None:
            raise review.ChangeUnknownError(f"changes/{number}")
        review.require_etag(draft, asked.etag)
        rule = rule_for(draft.state, Action.SUBMIT, name=f"{draft.name} ({draft.ref})")
        review.require_standing(rule, by, draft, present.charter, present.revocations)
        return draft

    async def _derive(
        self, submission: Submission, template: Template, code: Sequence[bytes], *, validate_only: bool
    ) -> tuple[Change, ModuleReport | None]:
        material, rules = self._publisher.present.material, self._publisher.rules()
        prepared = await asyncio.to_thread(prepare, submission, template, library=material.library, rules=rules)
        report = await self._report(prepared, code)
        change = await asyncio.to_thread(derive_change, prepared, report, plan=material.plan, rules=rules)
        moment = Moment(present=self._publisher.present, now=rules.now, validate_only=validate_only)
        await self._policy.submit(change, moment)
        return change, report

    async def _keep(self, change: Change, received: "_Received", asked: Ask[Change]) -> Change:
        submission, template = received.submission, received.template
        existing = await asyncio.to_thread(self._existing, submission, template)  # somebody else was quicker
        if existing is not None:
            return await self._again(existing, asked)
        return await asyncio.to_thread(self._store_all, change, received, asked)

    async def _again(self, existing: Change, asked: Ask[Change]) -> Change:
        if not asked.validate_only:
            await asyncio.to_thread(self._store.save_answer, asked.answered(existing, self._publisher.now()))
        return existing

    def _store_all(self, change: Change, received: "_Received", asked: Ask[Change]) -> Change:
        for data in received.code:
            self._blobs.put(data)
        report = received.report
        draft = self._store.draft_of(change.author, change.ref)
        number = self._store.add_change(
            change,
            report=None if report is None else (report.sha256, canonical_bytes(report.to_json())),
            instead=None if draft is None else review.replaced(draft, at=change.created_at),
            answer=lambda stored: asked.answered(stored, change.created_at),
        )
        return self._store.change(number) or change

    def _existing(self, submission: Submission, template: Template) -> Change | None:
        if submission.request_id:
            repeated = self._store.change_of_request(submission.author, submission.request_id)
            if repeated is not None:
                require_same_request(repeated, submission)
                return repeated
        existing = self._store.change_of_version(template.ref)
        if existing is not None:
            require_same(existing, submission)
            return existing
        draft = self._store.draft_of(submission.author, template.ref) if submission.is_draft else None
        return draft if draft is not None and is_same(draft, submission) else None

    async def _report(self, prepared: Prepared, code: Sequence[bytes]) -> ModuleReport | None:
        if prepared.module is None:
            return None
        stored = await asyncio.to_thread(self._store.report, prepared.module)
        if stored is not None:
            value = read_canonical(stored, bytes_max=_REPORT_BYTES_MAX)
            if isinstance(value, dict):
                return ModuleReport.from_json(value)
        own = next((data for data in code if hashlib.sha256(data).hexdigest() == prepared.module), None)
        wasm = own if own is not None else await asyncio.to_thread(self._blobs.read, prepared.module)
        with self._telemetry.span(SpanName.MODULE_INSPECT, {"code": prepared.module}):
            return await self._inspect(wasm)


async def _receive_all(blobs: Sequence[BlobPin], pieces: AsyncIterator[bytes]) -> list[bytes]:
    try:
        async with asyncio.timeout(CODE_TIMEOUT_S):
            return [await _receive(blob, pieces) for blob in blobs]
    except TimeoutError:
        raise SubmissionRefusedError(
            f"expected all code within {CODE_TIMEOUT_S:g} s, got a part of it", reason=Reason.INVALID_REQUEST
        ) from None


async def _receive(blob: BlobPin, pieces: AsyncIterator[bytes]) -> bytes:
    data = bytearray()
    while len(data) < blob.length:
        try:
            async with asyncio.timeout(PIECE_TIMEOUT_S):
                piece = await anext(pieces)
        except StopAsyncIteration:
            break
        except TimeoutError:
            raise SubmissionRefusedError(
                f"expected the next piece within {PIECE_TIMEOUT_S:g} s, got none", reason=Reason.INVALID_REQUEST
            ) from None
        if not 0 < len(piece) <= PIECE_BYTES_MAX:
            raise SubmissionRefusedError(
                f"expected pieces of 1 to {PIECE_BYTES_MAX} bytes, got {len(piece)}", reason=Reason.INVALID_REQUEST
            )
        data += piece
    if len(data) != blob.length:
        raise SubmissionRefusedError(
            f"expected {blob.length} bytes of code, got {len(data)}", reason=Reason.BLOB_MISMATCH
        )
    got = await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
    if got != blob.sha256:
        raise SubmissionRefusedError(f"expected code with sha256 {blob.sha256}, got {got}", reason=Reason.BLOB_MISMATCH)
    return bytes(data)
