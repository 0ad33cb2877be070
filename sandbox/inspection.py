"""What a module declares, as wasmtime sees it: the facts that admission and reviewers judge.

Found in the same kind of one-job child process as compilation. Nothing here decides; ``templates.capabilities`` does.
"""

from dataclasses import dataclass
from typing import Literal

from sandbox.compiler import CompilerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryDeclaration:
    """One linear memory that the module (or a core module inside the component) defines or imports, in bytes."""

    minimum_bytes: int
    maximum_bytes: int | None
    is_64: bool = False
    shared: bool = False
    imported: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDeclaration:
    """One table, in elements."""

    minimum: int
    maximum: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleFacts:
    """``imports`` and ``exports`` are exact names, sorted.

    Components: interface names with versions (``agentfactory:runtime/kv@0.1.0``) or function names. Core modules:
    ``module.field`` pairs as ``wasi_snapshot_preview1.fd_write``.
    """

    kind: Literal["component", "core"]
    sha256: str
    length: int
    imports: tuple[str, ...]
    exports: tuple[str, ...]
    memories: tuple[MemoryDeclaration, ...]
    tables: tuple[TableDeclaration, ...]

    def to_json(self) -> dict[str, object]:
        """The shape of ``templates.capabilities.ModuleReport``."""
        raise NotImplementedError


async def inspect(wasm: bytes, *, settings: CompilerSettings | None = None) -> ModuleFacts:
    """Return what ``wasm`` declares; refuses what the compiler would refuse.

    Raises:
        CompilerError: see its codes.
    """
    raise NotImplementedError
