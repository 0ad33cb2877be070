"""What a template can do, derived from its approved bytes and its module on whichever machine asks, and how two compare."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from templates.canonical import JsonObject
from templates.grants import Grants
from templates.limits import Limits
from templates.names import TemplatePattern, TemplateRef
from templates.resolved import PinnedCode, ResolvedTemplate


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReport:
    bytes_min: int
    bytes_max: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleReport:
    """What a ``.wasm`` file declares. The JSON is that of ``sandbox.inspection``.

    ``imports`` and ``exports`` are interface names for components (``agentfactory:runtime/kv@0.1.0``) and
    ``module.name`` for core modules (``wasi_snapshot_preview1.fd_write``; exports plain names).
    """

    sha256: str
    length: int
    kind: str  # "component" | "module"
    imports: tuple[str, ...]
    exports: tuple[str, ...]
    memories: tuple[MemoryReport, ...] = ()

    @classmethod
    def from_json(cls, value: JsonObject) -> Self:
        raise NotImplementedError

    def to_json(self) -> JsonObject:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What reviewers sign beside the digest, and what each node derives again for itself."""

    template: TemplateRef
    code: PinnedCode | None
    abi: str  # "component" | "image" | "command" | "abstract"
    imports: tuple[str, ...]
    interfaces: tuple[str, ...]
    grants: Grants
    limits: Limits
    callers: tuple[TemplatePattern, ...]
    on_lease_expiry: str

    def to_json(self) -> JsonObject:
        raise NotImplementedError

    def to_bytes(self) -> bytes:
        """Return the RFC 8785 bytes."""
        raise NotImplementedError

    @classmethod
    def from_json(cls, value: JsonObject) -> Self:
        """Raise `InvalidDocumentError` for anything that `to_json` would not give."""
        raise NotImplementedError


def derive(resolved: ResolvedTemplate, module: ModuleReport | None) -> Capabilities:
    """Derive what the template can do.

    Args:
        resolved: the template.
        module: report on its module, or on its image's; None only for an abstract template.

    Raises:
        ForbiddenImportError, ModuleMemoryError, ModuleMismatchError: the module and the template do not go together.
    """
    raise NotImplementedError


class Direction(StrEnum):
    WIDENED = "widened"
    NARROWED = "narrowed"
    CHANGED = "changed"  # neither: other code, another image
    SAME = "same"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a comparison: ``subject`` is a JSON pointer into the capabilities; texts are ready to show."""

    direction: Direction
    subject: str
    old: str
    new: str


def difference(old: Capabilities | None, new: Capabilities) -> Sequence[Entry]:
    """Compare what is active with what is proposed; without ``old`` everything that ``new`` can do is widened."""
    raise NotImplementedError
