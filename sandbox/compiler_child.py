"""The compiler's process: one job from its socket, one answer to it, then the end.

Run only by ``sandbox.compiler``. Everything it learns comes from its arguments and its socket, of which it reads the
first byte when it is confined.
"""

import json
import os
import resource
import socket
from collections.abc import Sequence
from typing import Final

from sandbox import compiler_job, engine, jail

_DESCRIPTORS_MAX: Final = 32
_PIECE_BYTES: Final = 1 << 20


def confine(launched: str, *, memory_bytes_max: int, cpu_s_max: int) -> jail.Confinement:
    """Take away what a compiler does not need, and limit it as ``CompilerSettings`` says.

    RLIMIT_DATA counts private writable memory; RLIMIT_AS would count reservations and is unusable with wasmtime. The
    compiler's threads are the one thing that it needs and a worker does not.
    """
    jail.prepare()
    engine.fingerprint()  # read from files that are out of reach afterwards
    limits = jail.ProcessLimits(
        open_files=_DESCRIPTORS_MAX,
        processes=resource.getrlimit(resource.RLIMIT_NPROC)[1],
        data_bytes=memory_bytes_max,
        cpu_s=cpu_s_max,
    )
    return jail.confine(limits, launched=launched, role="compiler")


def read_all(sock: socket.socket) -> bytes:
    pieces = []
    while piece := sock.recv(_PIECE_BYTES):
        pieces.append(piece)
    return b"".join(pieces)


def answer(sock: socket.socket, header: dict[str, object], body: bytes = b"") -> None:
    """Eight bytes of length, the JSON header, the body."""
    encoded = json.dumps(header).encode()
    sock.sendall(len(encoded).to_bytes(8, "big") + encoded)
    sock.sendall(body)


def refuse(sock: socket.socket, demanded: jail.Level, reached: jail.Confinement) -> None:
    """Say that this host isolates too little, and end without having read a byte of the module."""
    lacks = f" ({'; '.join(reached.missing)})" if reached.missing else ""
    text = f"expected a compiler at isolation level {demanded}, got {reached.level}{lacks}"
    answer(sock, {"error": {"code": "ISOLATION_TOO_WEAK", "message": text}})
    os._exit(0)


def main(descriptor: int, arguments: Sequence[str]) -> None:
    """``arguments``: the launcher's, the job, the limits as JSON."""
    launched, job, limits = arguments
    with socket.socket(fileno=descriptor) as sock:
        sock.setblocking(True)
        settings = json.loads(limits)
        demanded = settings.pop("jail")
        reached = confine(launched, **settings)
        try:
            if not jail.reaches(reached.level, demanded):
                refuse(sock, demanded, reached)
            header, body = compiler_job.JOBS[job](read_all(sock))
        except compiler_job.RefusedModuleError as refusal:
            answer(sock, {"error": {"code": "MODULE_INVALID", "message": str(refusal)}})
        except MemoryError:
            text = "expected to compile within the memory limit, got no more"
            answer(sock, {"error": {"code": "COMPILER_LIMIT", "message": text}})
        else:
            answer(sock, header, body)
        os._exit(0)  # wasmtime's threads need no farewell, and an ordinary end looks for files
