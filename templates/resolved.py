"""The resolved template: what is approved, signed, fetched and run. Every default is explicit, every file is a digest."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from templates.canonical import JsonObject
from templates.document import Abi, Example, LeaseExpiry
from templates.grants import Grants
from templates.limits import Limits
from templates.names import TemplateName, TemplatePattern, TemplateRef

RESOLVED_BYTES_MAX = 524_288


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentPin:
    """The parent as it was at submission: its reference and the digest of its resolved bytes."""

    template: TemplateRef
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobPin:
    sha256: str
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePin:
    """An image: the template of the domain ``images`` that it is, and the digest and length of its module."""

    template: TemplateRef
    sha256: str
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedSource:
    source: BlobPin
    file: str
    image: ImagePin

    def blobs(self) -> tuple[BlobPin, ...]:
        """Return what a node fetches for this code, the image's module included."""
        return (self.source, BlobPin(sha256=self.image.sha256, length=self.image.length))


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedModule:
    module: BlobPin
    abi: Abi

    def blobs(self) -> tuple[BlobPin, ...]:
        return (self.module,)


PinnedCode: TypeAlias = PinnedSource | PinnedModule


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedTemplate:
    """The effective template. Without ``code`` it is abstract: it can be a parent, and nothing else."""

    ref: TemplateRef
    author: str
    role: str
    description: str
    labels: Mapping[str, str]
    parent: ParentPin | None
    capabilities: tuple[str, ...]
    tools: tuple[str, ...]
    default_config: JsonObject
    config_schema: JsonObject | None
    input_schema: JsonObject | None
    output_schema: JsonObject | None
    examples: tuple[Example, ...]
    code: PinnedCode | None
    grants: Grants
    limits: Limits
    callers: tuple[TemplatePattern, ...]
    on_lease_expiry: LeaseExpiry

    def to_json(self) -> JsonObject:
        raise NotImplementedError

    def to_bytes(self) -> bytes:
        """Return the RFC 8785 bytes that are approved and travel."""
        raise NotImplementedError

    @property
    def digest(self) -> str:
        """Lower-case hexadecimal SHA-256 of `to_bytes`."""
        raise NotImplementedError

    @property
    def is_abstract(self) -> bool:
        return self.code is None

    @property
    def is_image(self) -> bool:
        return self.ref.domain == "images"

    def permits_caller(self, caller: TemplateName) -> bool:
        """Whether an agent of the template ``caller`` may invoke this one."""
        return any(pattern.matches(caller) for pattern in self.callers)


def read_resolved(data: bytes) -> ResolvedTemplate:
    """Read bytes that travelled: strict JSON, exactly canonical, every field present.

    Raises:
        InvalidTemplateError: not such a document.
        NotCanonicalError: not the RFC 8785 form of what it says.
    """
    raise NotImplementedError
