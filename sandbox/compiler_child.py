"""The compiler's process: one job from standard input to standard output, then the end.

Run only by ``sandbox.compiler``. Everything it learns comes from its two arguments and its standard input.
"""

import json
import os
import resource
import sys
from typing import Final

from sandbox import process

_STDIN: Final = 0
_STDOUT: Final = 1
_DESCRIPTORS_MAX: Final = 32


def limit_resources(*, memory_bytes_max: int, cpu_s_max: int) -> None:
    """Set what ``CompilerSettings`` says, for good: soft and hard limits alike.

    RLIMIT_DATA counts private writable memory; RLIMIT_AS would count reservations and is unusable with wasmtime. The
    compiler's threads are the one thing that it needs and a worker does not.
    """
    process.prefer_as_victim()
    threads = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    process.confine(process.ProcessLimits(open_files=_DESCRIPTORS_MAX, processes=threads))
    for which, value in ((resource.RLIMIT_DATA, memory_bytes_max), (resource.RLIMIT_CPU, cpu_s_max)):
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
    """``argv``: the package root and site folder (used by the bootstrap), the job, the limits as JSON."""
    job, limits = sys.argv[3], json.loads(sys.argv[4])
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
