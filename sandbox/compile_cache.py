"""Compiled code on disk under a MAC: whoever can write the directory still cannot make a worker run their bytes.

wasmtime loads compiled code with a flipped byte and runs it (sandbox notes, engine fact 7), so every entry is HMAC-SHA-256
over the module's digest, the engine's fingerprint (wasmtime version, configuration, CPU features), the ABI and the bytes.
"""

from dataclasses import dataclass
from pathlib import Path

from sandbox.compiler import CompiledCode, CompilerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStatistics:
    """Since the cache was opened. ``refused`` counts entries whose MAC did not fit: damage or tampering."""

    hits: int
    misses: int
    refused: int


class CompileCache:
    """A private directory (0700) of compiled modules; safe for several processes (temporary file, fsync, rename)."""

    def __init__(self, directory: Path, *, key: bytes, bytes_max: int = 4 << 30) -> None:
        """``key``: at least 32 secret bytes that outlive the process; another key makes every entry refused."""
        raise NotImplementedError

    def get(self, module_sha256: str) -> CompiledCode | None:
        """Return the entry for this engine, or None when absent or refused (a refused entry is deleted)."""
        raise NotImplementedError

    def put(self, compiled: CompiledCode) -> None:
        """Store durably, then evict the least recently used entries beyond ``bytes_max``."""
        raise NotImplementedError

    async def compile(self, wasm: bytes, *, settings: CompilerSettings | None = None) -> CompiledCode:
        """Return the cached code of ``wasm``, or compile and store it. Concurrent callers of one module share a job."""
        raise NotImplementedError

    def collect(self, keep: frozenset[str]) -> int:
        """Delete entries of modules not in ``keep`` (sha256 hex); return how many."""
        raise NotImplementedError

    @property
    def statistics(self) -> CacheStatistics:
        raise NotImplementedError
