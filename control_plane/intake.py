"""Takes submissions in: bytes checked, module inspected, change derived, everything durable, then answered."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from control_plane.file_blobs import FileBlobs
from control_plane.policy_gate import PolicyGate
from control_plane.publisher import Publisher
from control_plane.review import Change
from control_plane.sqlite_store import SqliteStore
from control_plane.submission import (
    Prepared,
    Submission,
    SubmissionRefusedError,
    check_code,
    derive_change,
    prepare,
    read_submission,
    require_same,
    require_same_request,
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
        validate_only: bool = False,
    ) -> Change:
        """Make a change of what ``author`` sent, or return the one that the same bytes made before.

        Args:
            author: person id from the caller's certificate.
            document: as written.
            filename: for messages.
            blobs: announced digests and lengths.
            pieces: the blobs' bytes, one after the other, at most `PIECE_BYTES_MAX` each.
            request_id: the same id and content give the same change, however often.
            validate_only: derive everything, store nothing; the change has number 0.

        Raises:
            AgentFactoryError: see `control_plane.submission`; nothing is stored then.
        """
        template = read_submission(document, blobs, filename=filename, request_id=request_id)
        async with self._room:
            with self._telemetry.span(SpanName.CHANGE_SUBMIT, {"template": str(template.ref)}):
                code = await _receive_all(blobs, pieces)
                submission = Submission(
                    author=author,
                    document=document,
                    filename=filename,
                    blob=blobs[0] if blobs else None,
                    request_id=request_id,
                )
                existing = await asyncio.to_thread(self._existing, submission, template)
                if existing is not None:
                    return existing
                for data in code:
                    check_code(template, data)
                return await self._derive(submission, template, code, validate_only=validate_only)

    async def _derive(
        self, submission: Submission, template: Template, code: Sequence[bytes], *, validate_only: bool
    ) -> Change:
        present = self._publisher.present
        rules = present.rules(self._publisher.now())
        prepared = await asyncio.to_thread(prepare, submission, template, library=present.material.library, rules=rules)
        report = await self._report(prepared, code)
        change = await asyncio.to_thread(derive_change, prepared, report, plan=present.material.plan, rules=rules)
        await self._policy.submit(change, present=present, now=rules.now)
        if validate_only:
            return change
        return await self._turns.take(lambda: self._keep(change, submission, template, code, report))

    async def _keep(
        self,
        change: Change,
        submission: Submission,
        template: Template,
        code: Sequence[bytes],
        report: ModuleReport | None,
    ) -> Change:
        existing = await asyncio.to_thread(self._existing, submission, template)  # somebody else was quicker
        if existing is not None:
            return existing
        return await asyncio.to_thread(self._store_all, change, code, report)

    def _store_all(self, change: Change, code: Sequence[bytes], report: ModuleReport | None) -> Change:
        for data in code:
            self._blobs.put(data)
        inspected = None if report is None else (report.sha256, canonical_bytes(report.to_json()))
        number = self._store.add_change(change, report=inspected)
        stored = self._store.change(number)
        return change if stored is None else stored

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
