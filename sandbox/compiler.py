"""Compile one ``.wasm`` in a process of its own that does this one job and exits.

The compiler is the largest body of code that reads an author's bytes, so it never runs in a process that holds a key,
a socket or another tenant. Only the text of the magic number decides what is accepted: a component or a core module.
Compiled code, ELF and archives are refused before anything parses them (ADR 8; sandbox notes, engine fact 7).
"""

from dataclasses import dataclass
from typing import Literal

Abi = Literal["component", "image", "command"]


class CompilerError(Exception):
    """A module was not compiled or inspected; ``code`` is stable, the message says what was expected and found.

    Codes: ``NOT_WASM`` (something else), ``COMPILED_CODE`` (machine code: ``.cwasm`` or ELF), ``MODULE_SIZE`` (over the
    limit), ``MODULE_INVALID`` (the engine refuses it), ``COMPILER_LIMIT`` (time, memory or output ran out),
    ``COMPILER_CRASH`` (the child died). None of them is worth a retry with the same bytes except the last.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class CompilerSettings:
    """What one job may use. ``memory_bytes_max`` bounds private writable memory (RLIMIT_DATA)."""

    module_bytes_max: int = 64 << 20
    code_bytes_max: int = 512 << 20
    memory_bytes_max: int = 3 << 30
    cpu_s_max: int = 180
    wall_s_max: float = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledCode:
    """Machine code for exactly one engine: give it only to a worker whose fingerprint is ``engine_fingerprint``.

    ``abi`` is what the module's own exports say: ``command`` for a core module, ``image`` for a component that exports
    ``load`` beside ``process``, else ``component``.
    """

    code: bytes
    abi: Abi
    module_sha256: str
    engine_fingerprint: str


async def compile_module(wasm: bytes, *, settings: CompilerSettings | None = None) -> CompiledCode:
    """Compile ``wasm`` with the workers' engine configuration.

    Cancelling the awaiting task kills the child.

    Raises:
        CompilerError: see its codes.
    """
    raise NotImplementedError
