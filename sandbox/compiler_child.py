"""The compiler's process: one job from standard input to standard output, then the end.

Run only by ``sandbox.compiler``. Everything it learns comes from its two arguments and its standard input.
"""

import json
import os
import resource
import sys
from typing import Final

_STDIN: Final = 0
_STDOUT: Final = 1
_DESCRIPTORS_MAX: Final = 32


def limit_resources(*, memory_bytes_max: int, cpu_s_max: int, code_bytes_max: int) -> None:
    """Set what ``CompilerSettings`` says, for good: soft and hard limits alike.

    RLIMIT_DATA counts private writable memory; RLIMIT_AS would count reservations and is unusable with wasmtime.
    """
    del code_bytes_max  # the reader of our answer enforces it
    for which, value in (
        (resource.RLIMIT_DATA, memory_bytes_max),
        (resource.RLIMIT_CPU, cpu_s_max),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _DESCRIPTORS_MAX),
    ):
        resource.setrlimit(which, (value, value))


def read_all(descriptor: int) -> bytes:
    pieces = []
    while piece := os.read(descriptor, 1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def answer(header: dict[str, object], body: bytes = b"") -> None:
    """Eight bytes of length, the JSON header, the body."""
    encoded = json.dumps(header).encode()
    rest = memoryview(len(encoded).to_bytes(8, "big") + encoded + body)
    while rest:
        rest = rest[os.write(_STDOUT, rest) :]


def main() -> None:
    """``argv``: the package root (used by the bootstrap), the job, the limits as JSON."""
    job, limits = sys.argv[2], json.loads(sys.argv[3])
    limit_resources(**limits)
    from sandbox import compiler_job

    try:
        header, body = compiler_job.JOBS[job](read_all(_STDIN))
    except compiler_job.RefusedModuleError as refusal:
        answer({"error": {"code": "MODULE_INVALID", "message": str(refusal)}})
    except MemoryError:
        answer(
            {"error": {"code": "COMPILER_LIMIT", "message": "expected to compile within the memory limit, got no more"}}
        )
    else:
        answer(header, body)
    os._exit(0)  # wasmtime's threads need no farewell
