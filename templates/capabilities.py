"""What a template can do, derived from its approved bytes and its module by whoever asks: the value reviewers sign.

The rules that bind a module to its template:

1. The report is about the pinned module: digest, length, kind and the exports of its ABI.
2. An author's module imports virtual WASI, ``log``, ``context`` and what its grants open; nothing else, and no other
   version of it. ``agentfactory.call`` of commands leads to all grants at once; to log and context alone
   where there are none.
3. An image may import every host interface; what a template was not granted is linked to a refusal when it runs.
4. The memories that a module declares fit, all together, into the template's limit.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from templates.canonical import JsonObject, canonical_bytes
from templates.document import Abi, LeaseExpiry
from templates.grants import Grants
from templates.limits import Limits
from templates.names import TemplatePattern, TemplateRef, nearest
from templates.problems import InvalidDocumentError, Problem
from templates.reasons import AgentFactoryError, Reason
from templates.resolved import PinnedCode, PinnedModule, PinnedSource, ResolvedTemplate, code_from_json, code_to_json
from templates.shape import CAPABILITIES_SHAPE

_NAME_CHARACTERS_SHOWN = 120
ABSTRACT, IMAGE = "abstract", "image"
HOST_VERSION = "0.1.0"
ALWAYS_OPEN = frozenset({"log", "context", "module-loader"})
GRANTED = frozenset({"kv", "http", "llm", "agents"})
COMMAND_CALL = "agentfactory.call"
_REQUIRED_EXPORTS = {
    Abi.COMPONENT: frozenset({"process"}),
    Abi.COMMAND: frozenset({"_start", "memory"}),
}
_KINDS = {Abi.COMPONENT: "component", Abi.COMMAND: "module"}
_WASI_0_2 = re.compile(
    r"wasi:(?:cli/(?:environment|exit|stdin|stdout|stderr|terminal-(?:input|output|stdin|stdout|stderr))"
    r"|clocks/(?:monotonic-clock|wall-clock)|filesystem/(?:preopens|types)|io/(?:error|poll|streams)"
    r"|random/(?:random|insecure|insecure-seed)"
    r"|sockets/(?:network|instance-network|ip-name-lookup|(?:tcp|udp)(?:-create-socket)?))@0\.2\.(?:0|[1-9][0-9]?)"
)
_PREVIEW_1 = re.compile(
    r"wasi_snapshot_preview1\.(?:(?:args|environ)_(?:sizes_)?get|clock_(?:res|time)_get|random_get|proc_(?:exit|raise)"
    r"|sched_yield|poll_oneoff|sock_(?:accept|recv|send|shutdown)"
    r"|fd_(?:advise|allocate|close|datasync|fdstat_get|fdstat_set_flags|fdstat_set_rights|filestat_get"
    r"|filestat_set_size|filestat_set_times|pread|prestat_dir_name|prestat_get|pwrite|read|readdir|renumber|seek|sync"
    r"|tell|write)"
    r"|path_(?:create_directory|filestat_get|filestat_set_times|link|open|readlink|remove_directory|rename|symlink"
    r"|unlink_file))"
)


class ForbiddenImportError(AgentFactoryError):
    """A module imports what its template was not granted, or what does not exist here."""

    reason = Reason.FORBIDDEN_IMPORT

    def __init__(self, *, template: TemplateRef, imports: tuple[str, ...], allowed: Iterable[str]) -> None:
        near = nearest(imports[0], allowed, count=1)
        hint = f" (the nearest permitted one is {near[0]})" if near else ""
        named = [_readable(each) for each in imports[:10]]
        super().__init__(
            f"expected imports of {template} within virtual WASI and its grants, got {', '.join(named)}{hint}",
            metadata={"template": str(template), "imports": ",".join(named)},
        )


def _readable(name: str) -> str:
    """A name from a module as it may be shown: on one line, without controls, of bounded length."""
    cut = name if len(name) <= _NAME_CHARACTERS_SHOWN else name[:_NAME_CHARACTERS_SHOWN] + "…"
    return cut if cut.isprintable() else json.dumps(cut)[1:-1]


class ModuleMemoryError(AgentFactoryError):
    """A module declares more memory than its template's limit."""

    reason = Reason.MODULE_MEMORY

    def __init__(self, *, template: TemplateRef, declared: int, limit: int) -> None:
        super().__init__(
            f"expected {template} to declare at most {limit} bytes of memory, got {declared}",
            metadata={"template": str(template), "declared": str(declared), "limit": str(limit)},
        )


class ModuleMismatchError(AgentFactoryError):
    """A module is not the one that the template pins, or not of the kind that its ABI needs."""

    reason = Reason.MODULE_MISMATCH


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReport:
    """One memory as declared; ``bytes_max`` is None when the module sets no maximum."""

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
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Build the report from our own inspection's JSON, which is trusted to have its shape."""
        memories = (
            MemoryReport(bytes_min=each["bytes_min"], bytes_max=each["bytes_max"]) for each in value["memories"]
        )
        return cls(
            sha256=value["sha256"],
            length=value["length"],
            kind=value["kind"],
            imports=tuple(value["imports"]),
            exports=tuple(value["exports"]),
            memories=tuple(memories),
        )

    def to_json(self) -> JsonObject:
        return {
            "sha256": self.sha256,
            "length": self.length,
            "kind": self.kind,
            "imports": list(self.imports),
            "exports": list(self.exports),
            "memories": [{"bytes_min": each.bytes_min, "bytes_max": each.bytes_max} for each in self.memories],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What reviewers sign beside the digest, and what each node derives again for itself."""

    template: TemplateRef
    code: PinnedCode | None
    abi: str  # "component" | "image" | "command" | "abstract"
    imports: tuple[str, ...]
    interfaces: tuple[str, ...]  # those of ours that calls can reach, for instance agentfactory:runtime/kv@0.1.0
    grants: Grants
    limits: Limits
    callers: tuple[TemplatePattern, ...]
    on_lease_expiry: LeaseExpiry

    def to_json(self) -> JsonObject:
        """Return the one JSON form: sets sorted, ``code`` left out when there is none."""
        members: JsonObject = {
            "schema": 1,
            "template": str(self.template),
            "abi": self.abi,
            "imports": [*sorted(set(self.imports))],
            "interfaces": [*sorted(set(self.interfaces))],
            "grants": self.grants.to_json(),
            "limits": {**self.limits.to_json()},
            "callers": [*sorted({str(each) for each in self.callers})],
            "on_lease_expiry": str(self.on_lease_expiry),
        }
        if self.code is not None:
            members["code"] = code_to_json(self.code)
        return members

    def to_bytes(self) -> bytes:
        """Return the RFC 8785 bytes."""
        return canonical_bytes(self.to_json())

    @classmethod
    def from_json(cls, value: JsonObject) -> Self:
        """Read capabilities that travelled in an approval.

        Raises:
            InvalidDocumentError: anything that `to_json` would not give.
        """
        CAPABILITIES_SHAPE.require(value, InvalidDocumentError)
        read = cls._from_checked_json(value)
        if read.to_json() != value:
            message = "expected the one form of capabilities, got sets unsorted or with repetitions"
            raise InvalidDocumentError([Problem(code=Reason.NOT_CANONICAL, message=message)])
        return read

    @classmethod
    def _from_checked_json(cls, value: Mapping[str, Any]) -> Self:
        return cls(
            template=TemplateRef.parse(value["template"]),
            code=code_from_json(value["code"]) if "code" in value else None,
            abi=value["abi"],
            imports=tuple(value["imports"]),
            interfaces=tuple(value["interfaces"]),
            grants=Grants.from_json(value["grants"]),
            limits=Limits(**value["limits"]),
            callers=tuple(TemplatePattern.parse(each) for each in value["callers"]),
            on_lease_expiry=LeaseExpiry(value["on_lease_expiry"]),
        )


def derive(resolved: ResolvedTemplate, module: ModuleReport | None) -> Capabilities:
    """Derive what the template can do; the steps are the rules above.

    Args:
        resolved: the template.
        module: report on its module, or on its image's; None only for an abstract template.

    Raises:
        ModuleMismatchError: rule 1.
        ForbiddenImportError: rule 2 or 3.
        ModuleMemoryError: rule 4.
    """
    code = resolved.code
    if code is None or module is None:
        if code is not None or module is not None:
            raise ModuleMismatchError(f"expected {resolved.ref} to have code and a report on it, got one of the two")
        return _capabilities(resolved, ABSTRACT, imports=(), interfaces=frozenset())
    opened = GRANTED & resolved.grants.interfaces()
    runs_source = isinstance(code, PinnedSource)
    hosts_source = runs_source or resolved.is_image
    _require_pinned(resolved, code, module, exports={"load"} if hosts_source else set())
    _require_imports(resolved.ref, module, opened=GRANTED if hosts_source else opened)
    declared = sum(memory.bytes_min for memory in module.memories)
    if declared > resolved.limits.memory_bytes:
        raise ModuleMemoryError(template=resolved.ref, declared=declared, limit=resolved.limits.memory_bytes)
    if COMMAND_CALL in module.imports:
        reachable = opened
    else:
        reachable = frozenset(name for name in opened | ALWAYS_OPEN if host_interface(name) in module.imports)
    abi = IMAGE if isinstance(code, PinnedSource) else str(code.abi)
    return _capabilities(resolved, abi, imports=module.imports, interfaces=reachable)


def host_interface(name: str) -> str:
    """Return the interface's full name: ``kv`` → ``agentfactory:runtime/kv@0.1.0``."""
    return f"agentfactory:runtime/{name}@{HOST_VERSION}"


def _capabilities(
    resolved: ResolvedTemplate, abi: str, *, imports: tuple[str, ...], interfaces: frozenset[str]
) -> Capabilities:
    return Capabilities(
        template=resolved.ref,
        code=resolved.code,
        abi=abi,
        imports=tuple(sorted(set(imports))),
        interfaces=tuple(sorted(host_interface(name) for name in interfaces)),
        grants=resolved.grants.ordered(),
        limits=resolved.limits,
        callers=tuple(sorted(set(resolved.callers))),
        on_lease_expiry=resolved.on_lease_expiry,
    )


def _require_pinned(resolved: ResolvedTemplate, code: PinnedCode, module: ModuleReport, *, exports: set[str]) -> None:
    pin, abi = (code.module, code.abi) if isinstance(code, PinnedModule) else (code.image, Abi.COMPONENT)
    if (module.sha256, module.length) != (pin.sha256, pin.length):
        raise ModuleMismatchError(
            f"expected a report on {pin.sha256}, {pin.length} bytes, got one on {module.sha256}, {module.length} bytes"
        )
    if module.kind != _KINDS[abi]:
        raise ModuleMismatchError(f"expected a {_KINDS[abi]} for the ABI {abi} of {resolved.ref}, got a {module.kind}")
    if missing := sorted((_REQUIRED_EXPORTS[abi] | exports) - set(module.exports)):
        raise ModuleMismatchError(f"expected {resolved.ref} to export {', '.join(missing)}, got a module that does not")


def _require_imports(template: TemplateRef, module: ModuleReport, *, opened: frozenset[str]) -> None:
    if module.kind == _KINDS[Abi.COMPONENT]:
        virtual, ours = _WASI_0_2, {host_interface(name) for name in opened | ALWAYS_OPEN}
    else:
        virtual, ours = _PREVIEW_1, {COMMAND_CALL}
    forbidden = tuple(sorted(each for each in module.imports if each not in ours and not virtual.fullmatch(each)))
    if forbidden:
        raise ForbiddenImportError(template=template, imports=forbidden, allowed=ours)
