"""Compile one ``.wasm`` in a process of its own that does this one job and exits.

The compiler is the largest body of code that reads an author's bytes, so it never runs in a process that holds a key,
a socket or another tenant. The first eight bytes decide what is accepted: a component or a core module. Compiled code,
ELF and everything else are refused before anything parses them (ADR 8; sandbox notes, engine fact 7).
"""

import asyncio
import hashlib
import json
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

from sandbox import process
from sandbox.request import Abi, CompiledCode

Job = Literal["compile", "inspect"]

CORE_PREAMBLE: Final = b"\x00asm\x01\x00\x00\x00"
COMPONENT_PREAMBLE: Final = b"\x00asm\x0d\x00\x01\x00"
ELF_MAGIC: Final = b"\x7fELF"
HEADER_BYTES_MAX: Final = 16 << 20  # an inspection's names; wasmtime itself caps them far below
_TOLD: Final = frozenset({"MODULE_INVALID", "COMPILER_LIMIT", "ISOLATION_TOO_WEAK"})
_PIECE_BYTES: Final = 1 << 20


class CompilerError(Exception):
    """A module was not compiled or inspected; ``code`` is stable, the message says what was expected and found.

    Codes: ``NOT_WASM`` (something else), ``COMPILED_CODE`` (machine code: ``.cwasm`` or ELF), ``MODULE_SIZE`` (over the
    limit), ``MODULE_INVALID`` (the engine refuses it), ``NO_ENTRY`` (it exports nothing that a node could call),
    ``COMPILER_LIMIT`` (time, memory or output ran out), ``COMPILER_CRASH`` (the child died, or its answer makes no
    sense), ``ISOLATION_TOO_WEAK`` (this host does not lock it away as demanded). Only the last two may be worth a retry
    with the same bytes.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class CompilerSettings:
    """What one job may use. ``memory_bytes_max`` bounds private writable memory (RLIMIT_DATA).

    A child that reaches less than the level ``jail`` reads nothing of the module.
    """

    module_bytes_max: int = 64 << 20
    code_bytes_max: int = 512 << 20
    memory_bytes_max: int = 4 << 30
    cpu_s_max: int = 180
    wall_s_max: float = 240.0
    jail: process.Level = "rlimits-only"


def refuse_what_is_not_wasm(data: bytes, *, bytes_max: int) -> None:
    """Raise unless ``data`` begins as a core module or a component of the versions that the engine knows.

    Raises:
        CompilerError: ``MODULE_SIZE``, ``COMPILED_CODE`` or ``NOT_WASM``.
    """
    if len(data) > bytes_max:
        raise CompilerError("MODULE_SIZE", f"expected at most {bytes_max} bytes, got {len(data)}")
    if data.startswith((CORE_PREAMBLE, COMPONENT_PREAMBLE)):
        return
    if data.startswith(ELF_MAGIC):  # what wasmtime writes as .cwasm is ELF too
        raise CompilerError("COMPILED_CODE", "expected a .wasm module, got compiled code (ELF or .cwasm)")
    if data.startswith(CORE_PREAMBLE[:4]):
        raise CompilerError("NOT_WASM", f"expected wasm version 1 or component version 13, got {data[4:8].hex()}")
    raise CompilerError("NOT_WASM", f"expected the wasm magic 0061736d, got {data[:4].hex() or 'nothing'}")


def abi_of(kind: str, exports: frozenset[str]) -> Abi:
    """The ABI that a module's exports offer.

    Raises:
        CompilerError: ``NO_ENTRY``.
    """
    if kind == "module":
        if "_start" not in exports:
            raise CompilerError("NO_ENTRY", "expected a core module to export _start, got none")
        return "command"
    if "process" not in exports:
        raise CompilerError("NO_ENTRY", "expected a component to export process, got none")
    return "image" if "load" in exports else "component"


async def compile_module(wasm: bytes, *, settings: CompilerSettings | None = None) -> CompiledCode:
    """Compile ``wasm`` with the workers' engine configuration.

    Cancelling the awaiting task kills the child.

    Raises:
        CompilerError: see its codes.
    """
    header, code = await run_job("compile", wasm, settings or CompilerSettings())
    with sensible():
        return CompiledCode(
            code=code,
            abi=abi_of(str(header["kind"]), frozenset(header["exports"])),
            module_sha256=hashlib.sha256(wasm).hexdigest(),
            engine_fingerprint=str(header["engine_fingerprint"]),
        )


@contextmanager
def sensible() -> Iterator[None]:
    """Turn what an answer provokes that the job does not give into an error of the compiler: a module may own it.

    Raises:
        CompilerError: ``COMPILER_CRASH``.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        text = f"expected the answer of a compiler, got one that lacks sense ({type(error).__name__})"
        raise CompilerError("COMPILER_CRASH", text) from error


async def run_job(job: Job, wasm: bytes, settings: CompilerSettings) -> tuple[dict[str, Any], bytes]:
    """Start the child, give it the module, and return its header and what follows.

    The child is jailed as a worker is, except that it may start threads (ADR 11), and sets itself the limits of
    ``settings`` before it reads the first byte of the module.

    Raises:
        CompilerError: see its codes.
    """
    refuse_what_is_not_wasm(wasm, bytes_max=settings.module_bytes_max)
    limits = json.dumps(
        {
            "memory_bytes_max": settings.memory_bytes_max,
            "cpu_s_max": settings.cpu_s_max,
            "jail": settings.jail,
        }
    )
    child: process.Child | None = None
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        try:
            async with asyncio.timeout(settings.wall_s_max):
                with theirs:
                    child = await process.start("sandbox.compiler_child", theirs, (job, limits))
                answer = await _exchange(ours, wasm, HEADER_BYTES_MAX + settings.code_bytes_max)
                status = await child.wait()
        except TimeoutError:
            text = f"expected an answer within {settings.wall_s_max} s, got none"
            raise CompilerError("COMPILER_LIMIT", text) from None
        except process.ProcessError as error:
            raise CompilerError("COMPILER_CRASH", str(error)) from error
        finally:
            if child is not None and child.poll() is None:
                child.send_signal(signal.SIGKILL)
                await child.wait()
    return _read_answer(answer, status)


async def _exchange(sock: socket.socket, wasm: bytes, answer_bytes_max: int) -> bytes:
    """Feed and read at once; an answer that is too long is cut one byte above its limit."""
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        feeding = tasks.create_task(_feed(sock, wasm))
        pieces: list[bytes] = []
        length = 0
        while length <= answer_bytes_max and (piece := await _read(loop, sock)):
            length += len(piece)
            pieces.append(piece)
        feeding.cancel()
    if length > answer_bytes_max:
        raise CompilerError("COMPILER_LIMIT", f"expected at most {answer_bytes_max} bytes of compiled code, got more")
    return b"".join(pieces)


async def _read(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bytes:
    try:
        return await loop.sock_recv(sock, _PIECE_BYTES)
    except ConnectionResetError:
        return b""  # the child died with bytes of ours unread: its status says why


async def _feed(sock: socket.socket, wasm: bytes) -> None:
    try:
        await asyncio.get_running_loop().sock_sendall(sock, wasm)
        sock.shutdown(socket.SHUT_WR)
    except (BrokenPipeError, ConnectionResetError):
        return  # the child died or refused early: its status and answer say why


def _read_answer(answer: bytes, status: int) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(answer[:8], "big")
    if status != 0 or len(answer) < 8 + length or not length:
        raise _death(status)
    with sensible():
        header = json.loads(answer[8 : 8 + length])
        if "error" in header:
            code = str(header["error"]["code"])
            raise CompilerError(code if code in _TOLD else "COMPILER_CRASH", str(header["error"]["message"])[:2_000])
        return {**header}, answer[8 + length :]


def _death(status: int) -> CompilerError:
    """A child that ended without an answer. SIGXCPU and SIGKILL are limits, as is the abort of a failed allocation."""
    if status in {-24, -9}:
        return CompilerError("COMPILER_LIMIT", f"the compiler exceeded its time or memory (signal {-status})")
    if status == -6:
        return CompilerError("COMPILER_LIMIT", "the compiler could not allocate more memory (signal 6)")
    return CompilerError("COMPILER_CRASH", f"the compiler ended with status {status} and no answer")
