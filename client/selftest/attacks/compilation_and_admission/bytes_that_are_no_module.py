"""Nothing, text, an archive, half a preamble, a module of another version.

Source: CWE-20. Expected: NOT_WASM for each, by the first eight bytes.
"""

from client.selftest.attack import Attack
from client.selftest.compiling import refused
from client.selftest.stage import Stage

_PIECES = (
    b"",
    b"\0asm",
    b"(module)",
    b"PK\x03\x04" + bytes(100),
    b"\0asm\x02\0\0\0",
    b"\0asm\x0d\0\x02\0",
    b"#!/bin/sh\n",
)


async def _run(stage: Stage) -> None:
    for piece in _PIECES:
        await refused(stage, piece, "NOT_WASM")


ATTACK = Attack(run=_run)
