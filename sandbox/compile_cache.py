"""Compiled code on disk under a MAC: whoever can write the directory still cannot make a worker run their bytes.

wasmtime loads compiled code with a flipped byte and runs it (sandbox notes, engine fact 7), so every entry carries an
HMAC-SHA-256 over the module's digest, the engine's fingerprint (wasmtime version, configuration, CPU features), the ABI
and the bytes. An entry whose MAC does not fit is deleted, counted and compiled again.
"""

import asyncio
import hashlib
import hmac
import os
import platform
import re
import stat
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

from sandbox.compiler import CompilerSettings, compile_module
from sandbox.request import Abi, CompiledCode

KEY_BYTES_MIN: Final = 32
MAGIC: Final = b"AFCC\x01"
_SUFFIX: Final = ".compiled"
_MAC_BYTES: Final = 32
_LENGTH_BYTES: Final = 4
_NAME = re.compile(r"([0-9a-f]{64})-[0-9a-f]{16}\.compiled")

Compile = Callable[[bytes], Awaitable[CompiledCode]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStatistics:
    """Since the cache was opened. ``refused`` counts entries whose MAC did not fit: damage or tampering."""

    hits: int
    misses: int
    refused: int


class CompileCache:
    """A private directory (0700) of compiled modules; safe for several processes (temporary file, fsync, rename)."""

    def __init__(
        self, directory: Path, *, key: bytes, bytes_max: int = 4 << 30, engine_fingerprint: str | None = None
    ) -> None:
        """Open or make ``directory``.

        Args:
            directory: belongs to this user alone; made with mode 0700.
            key: at least 32 secret bytes that outlive the process; under another key every entry is refused.
            bytes_max: the least recently used entries beyond it are evicted.
            engine_fingerprint: of the workers; by default of the engine installed here.

        Raises:
            ValueError: the key is too short.
            PermissionError: others may write the directory.
        """
        if len(key) < KEY_BYTES_MIN:
            raise ValueError(f"expected a key of at least {KEY_BYTES_MIN} bytes, got {len(key)}")
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(directory.stat().st_mode)
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"expected {directory} to be writable by its owner only, got mode {mode:o}")
        self._directory = directory
        self._key = key
        self._fingerprint = engine_fingerprint or _installed_engine()
        self._host = host_features()
        self._bytes_max = bytes_max
        self._turns: dict[str, asyncio.Lock] = {}
        self._hits = self._misses = self._refused = 0

    @property
    def engine_fingerprint(self) -> str:
        """Of the engine whose code is kept here."""
        return self._fingerprint

    def get(self, module_sha256: str) -> CompiledCode | None:
        """Return the entry for this engine, or None when absent or refused (a refused entry is deleted)."""
        path = self._path(module_sha256)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            self._misses += 1
            return None
        compiled = self._opened(data, module_sha256)
        if compiled is None:
            self._refused += 1
            path.unlink(missing_ok=True)
            return None
        os.utime(path)
        self._hits += 1
        return compiled

    def put(self, compiled: CompiledCode) -> None:
        """Store durably, then evict the least recently used entries beyond ``bytes_max``.

        Raises:
            ValueError: the code is for another engine.
        """
        if compiled.engine_fingerprint != self._fingerprint:
            raise ValueError(f"expected code for engine {self._fingerprint}, got {compiled.engine_fingerprint}")
        path = self._path(compiled.module_sha256)
        with tempfile.NamedTemporaryFile(dir=self._directory, prefix=".new-", delete=False) as file:
            try:
                file.write(self._sealed(compiled))
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
        self._sync_directory()
        self._evict(keep=path)

    async def compile(self, wasm: bytes, *, settings: CompilerSettings | None = None) -> CompiledCode:
        """Return the cached code of ``wasm``, or compile and store it.

        Of concurrent callers with the same module one compiles and the others wait; if it is cancelled, the next does.

        Raises:
            CompilerError: see its codes.
        """

        async def compile_it(data: bytes) -> CompiledCode:
            return await compile_module(data, settings=settings)

        return await self.compile_with(compile_it, wasm)

    async def compile_with(self, compile_it: Compile, wasm: bytes) -> CompiledCode:
        """``compile`` with another compiler."""
        digest = hashlib.sha256(wasm).hexdigest()
        turn = self._turns.setdefault(digest, asyncio.Lock())
        try:
            async with turn:
                compiled = await asyncio.to_thread(self.get, digest)
                if compiled is None:
                    compiled = await compile_it(wasm)
                    await asyncio.to_thread(self.put, compiled)
        finally:
            if not turn.locked():
                self._turns.pop(digest, None)
        return compiled

    def collect(self, keep: frozenset[str]) -> int:
        """Delete entries of modules not in ``keep`` (sha256 hex) and what killed writers left; return how many."""
        collected = 0
        for path in self._directory.iterdir():
            name = _NAME.fullmatch(path.name)
            if name is None or name[1] not in keep:
                path.unlink(missing_ok=True)
                collected += 1
        return collected

    @property
    def statistics(self) -> CacheStatistics:
        return CacheStatistics(hits=self._hits, misses=self._misses, refused=self._refused)

    def _path(self, module_sha256: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{64}", module_sha256):
            raise ValueError(f"expected a sha256 in hex, got {module_sha256[:80]!r}")
        engine = hashlib.sha256(f"{self._fingerprint} {self._host}".encode()).hexdigest()[:16]
        return self._directory / f"{module_sha256}-{engine}{_SUFFIX}"

    def _mac(self, module_sha256: str, abi: str, code: bytes | memoryview) -> bytes:
        """Every part has a fixed length or its length before it, so that no two entries share a message."""
        mac = hmac.new(self._key, MAGIC, hashlib.sha256)
        for part in (module_sha256, self._fingerprint, self._host, abi):
            mac.update(len(part.encode()).to_bytes(_LENGTH_BYTES, "big") + part.encode())
        mac.update(code)
        return mac.digest()

    def _sealed(self, compiled: CompiledCode) -> bytes:
        mac = self._mac(compiled.module_sha256, compiled.abi, compiled.code)
        return MAGIC + mac + compiled.abi.encode().ljust(16, b"\0") + compiled.code

    def _opened(self, data: bytes, module_sha256: str) -> CompiledCode | None:
        start = len(MAGIC) + _MAC_BYTES + 16
        abi = data[len(MAGIC) + _MAC_BYTES : start].rstrip(b"\0").decode("ascii", "replace")
        if not data.startswith(MAGIC) or len(data) < start or abi not in get_args(Abi):
            return None
        code = memoryview(data)[start:]
        if not hmac.compare_digest(self._mac(module_sha256, abi, code), data[len(MAGIC) : len(MAGIC) + _MAC_BYTES]):
            return None
        return CompiledCode(
            code=bytes(code),
            abi=_ABIS[abi],
            module_sha256=module_sha256,
            engine_fingerprint=self._fingerprint,
        )

    def _sync_directory(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _evict(self, *, keep: Path) -> None:
        entries = sorted(((status.st_mtime_ns, status.st_size, path) for path, status in self._entries()), reverse=True)
        total = 0
        for _, size, path in entries:
            total += size
            if total > self._bytes_max and path != keep:
                path.unlink(missing_ok=True)

    def _entries(self) -> list[tuple[Path, os.stat_result]]:
        found = []
        for path in self._directory.glob(f"*{_SUFFIX}"):
            try:
                found.append((path, path.stat()))
            except FileNotFoundError:  # another process evicted it
                continue
        return found


_ABIS: Final[dict[str, Abi]] = {"component": "component", "image": "image", "command": "command"}


def host_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The machine's architecture and a digest of its CPU features: compiled code may use all of them."""
    lines = cpuinfo.read_text(encoding="ascii", errors="replace").splitlines() if cpuinfo.exists() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:16]}"


def _installed_engine() -> str:
    from sandbox.engine import fingerprint  # loads wasmtime, which a test with its own fingerprint need not

    return fingerprint()
