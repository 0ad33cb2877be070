"""Hand a template and its code to the control plane."""

import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from client.documents import parse_file
from templates.document import ModuleCode, SourceCode
from templates.reasons import AgentFactoryError, Reason

if TYPE_CHECKING:
    import grpc
    from agentfactory.admin.v1 import admin_pb2

PIECE_BYTES = 256 * 1024
SUBMIT_TIMEOUT_S = 300.0


class CodeFileError(AgentFactoryError):
    """The file that a template's ``code`` names cannot be read."""

    reason = Reason.CODE_FILE_MISSING


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A document as written and the bytes of the files that it names."""

    filename: str
    document: bytes
    blobs: tuple[bytes, ...]


def read_submission(path: Path) -> Submission:
    """Read a template document and, relative to it, its code.

    Raises:
        InvalidFileError: with every problem of the document.
        CodeFileError: the code's file cannot be read.
    """
    document = path.read_bytes()
    template = parse_file(str(path), document)
    blobs: tuple[bytes, ...] = ()
    if template.code is not None:
        file = path.parent / code_file(template.code)
        try:
            blobs = (file.read_bytes(),)
        except OSError as error:
            raise CodeFileError(f"expected the code of {template.ref} at {file}, got: {error.strerror}") from error
    return Submission(filename=str(path), document=document, blobs=blobs)


def code_file(code: SourceCode | ModuleCode) -> str:
    """Return the file name that ``code`` names, relative to its document."""
    return code.source if isinstance(code, SourceCode) else code.module


def submit(
    channel: "grpc.Channel", submission: Submission, *, validate_only: bool = False, draft: bool = False
) -> "admin_pb2.Change":
    """Submit and return the change; a retry with the same content returns the same change."""
    from agentfactory.admin.v1 import admin_pb2 as pb
    from agentfactory.admin.v1.admin_pb2_grpc import TemplateServiceStub

    header = pb.SubmitHeader(
        document=submission.document,
        filename=submission.filename,
        blobs=[pb.BlobHeader(sha256=hashlib.sha256(blob).digest(), length=len(blob)) for blob in submission.blobs],
        validate_only=validate_only,
        request_id=str(uuid.uuid4()),
        draft=draft,
    )

    # Its channel takes what can be iterated again, and then sends it again when it has to wait for its turn.
    messages = cast("Iterator[pb.SubmitTemplateRequest]", _Messages(header, submission.blobs))
    change: pb.Change = TemplateServiceStub(channel).SubmitTemplate(messages, timeout=SUBMIT_TIMEOUT_S)
    return change


@dataclass(frozen=True, slots=True)
class _Messages:
    """What is sent; can be iterated, and so sent, again."""

    header: "admin_pb2.SubmitHeader"
    blobs: tuple[bytes, ...]

    def __iter__(self) -> "Iterator[admin_pb2.SubmitTemplateRequest]":
        from agentfactory.admin.v1 import admin_pb2 as pb

        yield pb.SubmitTemplateRequest(header=self.header)
        for blob in self.blobs:
            for start in range(0, len(blob), PIECE_BYTES):
                yield pb.SubmitTemplateRequest(piece=blob[start : start + PIECE_BYTES])
