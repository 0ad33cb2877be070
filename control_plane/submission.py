"""From an author's document and code to a change that can be reviewed: resolved, pinned, with the payload to sign.

Two steps, because the module is inspected between them, in a jailed process: `prepare` says which module's report it
needs, `derive_change` builds the change from it. Every reviewer does the same with the same functions of `templates`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn

from control_plane.library import Library
from control_plane.lifecycle import ChangeState
from control_plane.plan import Rules
from control_plane.review import Change
from templates.approval import Statement
from templates.capabilities import ModuleReport, derive
from templates.document import Abi, ModuleCode, SourceCode, Template, read_template
from templates.inheritance import ancestors_of, resolve
from templates.names import IMAGES_DOMAIN, TemplateName, TemplateRef, nearest
from templates.plan import Plan
from templates.reasons import AgentFactoryError, Reason
from templates.resolved import (
    BlobPin,
    ImagePin,
    PinnedCode,
    PinnedModule,
    PinnedSource,
    ResolvedTemplate,
    read_resolved,
)
from templates.source_archive import SourceInvalidError, check_source

DOCUMENT_BYTES_MAX = 262_144
SOURCE_BYTES_MAX = 1_048_576
ARCHIVE_BYTES_MAX = 16_777_216
MODULE_BYTES_MAX = 67_108_864
FILENAME_CHARACTERS_MAX = 255
REQUEST_ID_CHARACTERS_MAX = 128
_CLOCK_ALLOWANCE = timedelta(hours=1)
"""Taken off an approval's longest life: a reviewer whose clock is behind does not find it too long."""


class SubmissionRefusedError(AgentFactoryError):
    """What was submitted cannot become a change; ``reason`` says why."""

    def __init__(self, message: str, *, reason: Reason, metadata: dict[str, str] | None = None) -> None:
        super().__init__(message, metadata=metadata)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a person sent. ``blob`` is the one file that the document names, None when it names none."""

    author: str
    document: bytes
    filename: str
    blob: BlobPin | None
    request_id: str = ""
    is_draft: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A resolved template. ``module`` is the digest whose report `derive_change` needs; None without code."""

    submission: Submission
    resolved: ResolvedTemplate
    module: str | None


def blob_bytes_max(template: Template) -> int:
    """Return how long the file that ``template`` names may be."""
    match template.code:
        case ModuleCode():
            return MODULE_BYTES_MAX
        case SourceCode(source=source) if source.endswith(".zip"):
            return ARCHIVE_BYTES_MAX
        case SourceCode():
            return SOURCE_BYTES_MAX
        case None:
            return 0


def read_submission(document: bytes, blobs: Sequence[BlobPin], *, filename: str, request_id: str) -> Template:
    """Check what can be checked before any code has been received, and return the document.

    Raises:
        InvalidTemplateError: every problem of the document.
        SubmissionRefusedError: SUBMISSION_TOO_LARGE, or CODE_MISSING when files and document do not go together.
    """
    for what, size, size_max in (
        ("document", len(document), DOCUMENT_BYTES_MAX),
        ("file name", len(filename), FILENAME_CHARACTERS_MAX),
        ("request id", len(request_id), REQUEST_ID_CHARACTERS_MAX),
    ):
        if size > size_max:
            raise SubmissionRefusedError(
                f"expected a {what} of at most {size_max}, got {size}", reason=Reason.SUBMISSION_TOO_LARGE
            )
    template = read_template(document)
    expected = 0 if template.code is None else 1
    if len(blobs) != expected:
        raise SubmissionRefusedError(
            f"expected {expected} files of code with this document, got {len(blobs)}", reason=Reason.CODE_MISSING
        )
    for blob in blobs:
        if not 0 < blob.length <= blob_bytes_max(template):
            raise SubmissionRefusedError(
                f"expected code of 1 to {blob_bytes_max(template)} bytes, got {blob.length}",
                reason=Reason.SUBMISSION_TOO_LARGE,
            )
    return template


def check_code(template: Template, data: bytes) -> None:
    """Check a source file as far as reading it goes; modules are inspected elsewhere.

    Raises:
        SubmissionRefusedError: SOURCE_INVALID: not the text, or not the archive, that its name says; or text that shows
            reviewers other code than the interpreter sees (bidirectional controls, CVE-2021-42574).
    """
    if not isinstance(template.code, SourceCode):
        return
    try:
        check_source(template.code.source, data)
    except SourceInvalidError as error:
        raise SubmissionRefusedError(error.message, reason=Reason.SOURCE_INVALID) from None


def prepare(submission: Submission, template: Template, *, library: Library, rules: Rules) -> Prepared:
    """Resolve the document against the newest approved parents and image.

    Raises:
        InvalidTemplateError: the parents do not allow it, or there is none of that name.
        SubmissionRefusedError: DOMAIN_UNKNOWN, BELOW_FLOOR, IMAGE_UNKNOWN.
    """
    _require_room(template.ref, rules)

    def newest(name: TemplateName) -> ResolvedTemplate | None:
        found = library.newest(name, rules.revocations, deprecated=rules.deprecated)
        return None if found is None else found.resolved

    resolved = resolve(
        template,
        ancestors_of(template, newest=newest, pinned=library.pinned),
        author=submission.author,
        code=_pin(template, submission.blob, library, rules),
    )
    return Prepared(submission=submission, resolved=resolved, module=_module_of(resolved.code))


def derive_change(prepared: Prepared, report: ModuleReport | None, *, plan: Plan, rules: Rules) -> Change:
    """Derive the capabilities and build the change with the payload that its reviewers sign.

    Raises:
        ForbiddenImportError, ModuleMemoryError, ModuleMismatchError: the module and the template do not go together.
    """
    resolved, submission = prepared.resolved, prepared.submission
    created_at = rules.now.replace(microsecond=0)
    resolved_bytes = resolved.to_bytes()
    statement = Statement(
        environment=rules.charter.environment,
        template=resolved.ref,
        sha256=resolved.digest,
        author=resolved.author,
        capabilities=derive(resolved, report),
        expires=created_at + timedelta(days=rules.charter.approval_days_max) - _CLOCK_ALLOWANCE,
    )
    return Change(
        number=0,
        state=ChangeState.DRAFT if submission.is_draft else ChangeState.IN_REVIEW,
        ref=resolved.ref,
        sha256=resolved.digest,
        author=resolved.author,
        created_at=created_at,
        filename=submission.filename,
        document=submission.document,
        resolved=resolved_bytes,
        statement=statement.to_payload(),
        code_sha256=submission.blob.sha256 if submission.blob else None,
        request_id=submission.request_id,
        warnings=tuple(_warnings(resolved, plan, rules)),
    )


def is_same(existing: Change, submission: Submission) -> bool:
    """Whether ``submission`` is what ``existing`` was made from, byte for byte."""
    code = submission.blob.sha256 if submission.blob else None
    return (existing.document, existing.code_sha256) == (submission.document, code)


def require_same(existing: Change, submission: Submission) -> None:
    """Raise VERSION_EXISTS unless ``submission`` is what ``existing`` was made from."""
    if not is_same(existing, submission):
        raise_version_exists(existing)


def raise_version_exists(existing: Change) -> NoReturn:
    raise SubmissionRefusedError(
        f"expected a version that does not exist yet, or the same bytes as {existing.name}: {existing.ref} exists "
        f"({existing.state}) with other content; publish it under a higher version",
        reason=Reason.VERSION_EXISTS,
        metadata={"change": existing.name},
    )


def require_same_request(existing: Change, submission: Submission) -> None:
    """Raise REQUEST_ID_REUSED unless ``submission`` repeats the one that made ``existing``."""
    if not is_same(existing, submission):
        raise SubmissionRefusedError(
            f"expected a new request id, got the one that made {existing.name} from other content",
            reason=Reason.REQUEST_ID_REUSED,
        )


def _module_of(code: PinnedCode | None) -> str | None:
    match code:
        case PinnedSource(image=image):
            return image.sha256
        case PinnedModule(module=module):
            return module.sha256
        case None:
            return None


def _require_room(ref: TemplateRef, rules: Rules) -> None:
    if ref.domain not in rules.charter.domains:
        near = nearest(ref.domain, rules.charter.domains)
        raise SubmissionRefusedError(
            f"expected a domain of the charter, got {ref.domain}" + (f"; did you mean {near[0]}?" if near else ""),
            reason=Reason.DOMAIN_UNKNOWN,
            metadata={"nearest": ",".join(near)},
        )
    floor = rules.charter.floors.get(ref.template_name)
    if floor is not None and ref.version < floor:
        raise SubmissionRefusedError(
            f"expected a version of {ref.template_name} from {floor}, got {ref.version}", reason=Reason.BELOW_FLOOR
        )


def _pin(template: Template, blob: BlobPin | None, library: Library, rules: Rules) -> PinnedCode | None:
    match template.code, blob:
        case SourceCode(source=source, image=image), BlobPin():
            return PinnedSource(source=blob, file=source, image=_image(image, template, library, rules))
        case ModuleCode(abi=abi), BlobPin():
            return PinnedModule(module=blob, abi=abi)
        case _:
            return None


def _image(name: str, template: Template, library: Library, rules: Rules) -> ImagePin:
    image = TemplateName(IMAGES_DOMAIN, name)
    found = library.newest(image, rules.revocations, deprecated=rules.deprecated)
    if (
        found is None
        or not isinstance(found.resolved.code, PinnedModule)
        or found.resolved.code.abi is not Abi.COMPONENT
    ):
        known = {each.ref.name for each in library if each.resolved.is_image}
        near = nearest(name, known)
        raise SubmissionRefusedError(
            f"expected an approved image for {template.ref}, got {name!r}, which is none"
            + (f"; did you mean {near[0]}?" if near else f"; approved are: {', '.join(sorted(known)) or 'none'}"),
            reason=Reason.IMAGE_UNKNOWN,
            metadata={"nearest": ",".join(near)},
        )
    module = found.resolved.code.module
    return ImagePin(template=found.ref, sha256=module.sha256, length=module.length)


def submission_of(draft: Change) -> tuple[Submission, Template]:
    """Return what made ``draft``, to be derived again: its parents and its image may have moved on since."""
    code = read_resolved(draft.resolved).code
    blob = next((pin for pin in code.blobs() if pin.sha256 == draft.code_sha256), None) if code else None
    submission = Submission(
        author=draft.author,
        document=draft.document,
        filename=draft.filename,
        blob=blob,
        request_id=draft.request_id,
    )
    return submission, read_template(draft.document)


def _warnings(resolved: ResolvedTemplate, plan: Plan, rules: Rules) -> list[str]:
    name, version = resolved.ref.template_name, resolved.ref.version
    warnings = [
        f"{entry.template} is active and newer: this version will be in the library only"
        for entry in plan.entries
        if entry.template.template_name == name and entry.template.version > version
    ]
    pins = [resolved.parent.template] if resolved.parent else []
    if isinstance(resolved.code, PinnedSource):
        pins.append(resolved.code.image.template)
    warnings += [
        f"{pin} is deprecated, and no other version of it is approved" for pin in pins if pin in rules.deprecated
    ]
    if not resolved.is_abstract and not resolved.is_image and not resolved.examples:
        warnings.append("no examples: reviewers cannot see what it answers")
    return warnings
