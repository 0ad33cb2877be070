"""The resolved template: what is approved, signed, fetched and run; every default explicit, every file a digest."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from templates.canonical import JsonObject, NotCanonicalError, canonical_bytes, sha256_hex
from templates.document import Abi, Example, LeaseExpiry
from templates.grants import Grants
from templates.limits import Limits
from templates.names import IMAGES_DOMAIN, TemplateName, TemplatePattern, TemplateRef, Version
from templates.problems import InvalidTemplateError
from templates.shape import RESOLVED_SHAPE
from templates.strict_json import read_canonical

RESOLVED_BYTES_MAX = 524_288
RESOLVED_DEPTH_MAX = 40


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
        """Return the document: optional members are left out when absent, sets are sorted."""
        members: dict[str, Any] = {
            "schema": 1,
            "domain": self.ref.domain,
            "name": self.ref.name,
            "version": str(self.ref.version),
            "author": self.author,
            "role": self.role,
            "description": self.description,
            "labels": dict(self.labels),
            "capabilities": list(self.capabilities),
            "tools": list(self.tools),
            "default_config": self.default_config,
            "config_schema": self.config_schema,
            "input_schema": self.input_schema,
            "output_schema": self.output_schema,
            "examples": [each.to_json() for each in self.examples],
            "grants": self.grants.to_json(),
            "limits": self.limits.to_json(),
            "callers": sorted({str(each) for each in self.callers}),
            "on_lease_expiry": str(self.on_lease_expiry),
        }
        if self.parent is not None:
            members["parent"] = {"template": str(self.parent.template), "sha256": self.parent.sha256}
        if self.code is not None:
            members["code"] = code_to_json(self.code)
        return {name: member for name, member in members.items() if member is not None}

    def to_bytes(self) -> bytes:
        """Return the RFC 8785 bytes that are approved and travel."""
        return canonical_bytes(self.to_json())

    @property
    def digest(self) -> str:
        """Lower-case hexadecimal SHA-256 of `to_bytes`, computed anew each time."""
        return sha256_hex(self.to_bytes())

    @property
    def pin(self) -> ParentPin:
        """What a child's resolved template says about this one."""
        return ParentPin(template=self.ref, sha256=self.digest)

    @property
    def is_abstract(self) -> bool:
        return self.code is None

    @property
    def is_image(self) -> bool:
        """Whether this is a language runtime for others' source, never instantiated as an agent itself."""
        return self.ref.domain == IMAGES_DOMAIN

    def permits_caller(self, caller: TemplateName) -> bool:
        """Whether an agent of the template ``caller`` may invoke this one."""
        return any(pattern.matches(caller) for pattern in self.callers)


def read_resolved(data: bytes) -> ResolvedTemplate:
    """Read bytes that travelled.

    Steps: (1) length, strict JSON, (2) the bytes are their own RFC 8785 form, (3) shape, (4) the value, written again,
    gives these very bytes: every default was explicit and every set sorted, so that one template has one digest.

    Raises:
        InvalidDocumentError: step 1.
        NotCanonicalError: step 2 or 4.
        InvalidTemplateError: step 3.
    """
    value = read_canonical(data, bytes_max=RESOLVED_BYTES_MAX, depth_max=RESOLVED_DEPTH_MAX)
    RESOLVED_SHAPE.require(value, InvalidTemplateError)
    resolved = _from_json(cast("JsonObject", value))
    if resolved.to_bytes() != data:
        raise NotCanonicalError("expected the one form of a resolved template, got sets unsorted or with repetitions")
    return resolved


def code_to_json(code: PinnedCode) -> JsonObject:
    """Return the ``code`` member of resolved templates and of capabilities."""
    if isinstance(code, PinnedModule):
        return {"module": {"sha256": code.module.sha256, "length": code.module.length}, "abi": str(code.abi)}
    return {
        "source": {"sha256": code.source.sha256, "length": code.source.length, "file": code.file},
        "image": {
            "template": str(code.image.template),
            "sha256": code.image.sha256,
            "length": code.image.length,
        },
    }


def code_from_json(value: Mapping[str, Any]) -> PinnedCode:
    """Build the pins from a ``code`` member whose shape is right."""
    if "module" in value:
        return PinnedModule(module=BlobPin(**value["module"]), abi=Abi(value["abi"]))
    source, image = value["source"], value["image"]
    return PinnedSource(
        source=BlobPin(sha256=source["sha256"], length=source["length"]),
        file=source["file"],
        image=ImagePin(template=TemplateRef.parse(image["template"]), sha256=image["sha256"], length=image["length"]),
    )


def _from_json(value: Mapping[str, Any]) -> ResolvedTemplate:
    parent, code = value.get("parent"), value.get("code")
    return ResolvedTemplate(
        ref=TemplateRef(value["domain"], value["name"], Version.parse(value["version"])),
        author=value["author"],
        role=value["role"],
        description=value["description"],
        labels=value["labels"],
        parent=parent and ParentPin(template=TemplateRef.parse(parent["template"]), sha256=parent["sha256"]),
        capabilities=tuple(value["capabilities"]),
        tools=tuple(value["tools"]),
        default_config=value["default_config"],
        config_schema=value.get("config_schema"),
        input_schema=value.get("input_schema"),
        output_schema=value.get("output_schema"),
        examples=tuple(Example.from_json(each) for each in value["examples"]),
        code=None if code is None else code_from_json(code),
        grants=Grants.from_json(value["grants"]),
        limits=Limits(**value["limits"]),
        callers=tuple(TemplatePattern.parse(each) for each in value["callers"]),
        on_lease_expiry=LeaseExpiry(value["on_lease_expiry"]),
    )
