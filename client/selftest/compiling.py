"""Modules by hand, and what the product's own compiler process and admission say to them.

The same code as on a node and in a control plane: a one-job child for every module. What is judged is the answer: facts
or one of the compiler's codes, in bounded time. A child that crashes is contained, and still a finding.
"""

import time
from collections.abc import Mapping
from typing import Any, Final

from client.selftest.attack import BreachError, Guest
from client.selftest.stage import Stage
from client.selftest.world import World
from sandbox.compiler import CORE_PREAMBLE, CompilerError, compile_module
from sandbox.engine import EngineError, wat2wasm
from sandbox.inspection import inspect
from templates.problems import InvalidDocumentError
from templates.reasons import AgentFactoryError

PREAMBLE: Final = CORE_PREAMBLE
JUDGED_WITHIN_S: Final = 30.0
_MESSAGE_CHARACTERS_MAX: Final = 4_000


def leb128(number: int) -> bytes:
    """Return an unsigned number as the format writes it (WebAssembly core specification, 5.2.2)."""
    pieces = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        pieces.append(low | (0x80 if number else 0))
        if not number:
            return bytes(pieces)


def section(kind: int, content: bytes) -> bytes:
    """A section (5.5.2)."""
    return bytes([kind]) + leb128(len(content)) + content


def function(body: bytes, *, local_groups: bytes = b"\x00") -> bytes:
    """The code of a function without parameters and results (5.5.13)."""
    code = local_groups + body + b"\x0b"
    return leb128(len(code)) + code


def module(*functions: bytes) -> bytes:
    """A module of these functions, the first of which is exported as ``_start``."""
    count = leb128(len(functions))
    return (
        PREAMBLE
        + section(1, b"\x01\x60\x00\x00")
        + section(3, count + bytes(len(functions)))
        + section(7, b"\x01\x06_start\x00\x00")
        + section(10, count + b"".join(functions))
    )


async def refused(stage: Stage, wasm: bytes, *codes: str) -> None:
    """Have the module inspected and compiled; both must end in one of ``codes``."""
    for job in (inspect, compile_module):
        try:
            await job(wasm)
        except CompilerError as error:
            _require_clean(stage, error.message)
            if error.code not in codes:
                raise BreachError(f"expected {' or '.join(codes)}, got {error.code}: {error.message[:200]}") from None
        else:
            raise BreachError(f"expected {' or '.join(codes)}, got a module that {job.__name__} takes")


async def refused_text(stage: Stage, wat: str) -> None:
    """Have a module given as text refused as invalid; an assembler that does not know it is no proof."""
    try:
        wasm = wat2wasm(wat)
    except EngineError as error:
        raise BreachError(f"expected a text that can be assembled, got {error}") from None
    await refused(stage, wasm, "MODULE_INVALID")


async def judged_in_time(stage: Stage, wasm: bytes) -> None:
    """Have the module inspected: facts or a typed refusal, never a crash of the child, in bounded time."""
    started = time.perf_counter()
    try:
        facts = await inspect(wasm)
    except CompilerError as error:
        _require_clean(stage, error.message)
        if error.code == "COMPILER_CRASH":
            raise BreachError(f"expected facts or a refusal, got a compiler that died: {error.message}") from None
    else:
        stage.require(facts.length == len(wasm), "expected facts about these bytes")
    took = time.perf_counter() - started
    stage.require(took <= JUDGED_WITHIN_S, f"expected an answer within {JUDGED_WITHIN_S:.0f} s, got {took:.1f} s")


async def forbidden(stage: Stage, wat: str, *, abi: str = "command", grants: Mapping[str, Any] | None = None) -> None:
    """Have a template with this module refused for its imports."""
    await not_admitted(stage, wat, "FORBIDDEN_IMPORT", abi=abi, grants=grants)


async def not_admitted(
    stage: Stage,
    wat: str,
    *reasons: str,
    abi: str = "command",
    grants: Mapping[str, Any] | None = None,
    document: Mapping[str, Any] | None = None,
) -> None:
    """Read, inspect and derive a template as its reviewers do; that must end in one of ``reasons``."""
    guest = Guest(wat=wat, abi=abi, grants=grants or {}, document=document or {})
    world = World.make(_place(stage))
    try:
        world.approve("attacks/victim", guest)
    except InvalidDocumentError as error:
        found = {str(problem.code) for problem in error.problems} | {str(error.reason)}
        _require_clean(stage, error.message)
    except AgentFactoryError as error:
        found = {str(error.reason)}
        _require_clean(stage, error.message)
    else:
        raise BreachError(f"expected {' or '.join(reasons)}, got a template that is admitted")
    if not found & set(reasons):
        raise BreachError(f"expected {' or '.join(reasons)}, got {', '.join(sorted(found))}")


def _place(stage: Stage) -> Any:
    directory = stage.scratch / str(len(list(stage.scratch.iterdir())))
    directory.mkdir()
    return directory


def _require_clean(stage: Stage, message: str) -> None:
    stage.note(message)
    stage.require(len(message) <= _MESSAGE_CHARACTERS_MAX, f"expected a short message, got {len(message)} characters")
    shown = message.replace("\n", " ")
    stage.require(shown.isprintable(), f"expected a printable message, got {shown[:200]!r}")
