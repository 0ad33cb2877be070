"""Guests that try what they are told with files, and what may come of it."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from client.selftest.attack import BreachError, Guest
from client.selftest.guests import command, data, write
from client.selftest.stage import ATTACKER, Stage

_PROBE: Final = """
import errno
import json
import os
import shutil
from pathlib import Path

def attempt(expression):
    try:
        return "= " + repr(eval(expression))[:1_000]
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    except ValueError as error:
        return "ValueError"

def process(text):
    return [attempt(each) for each in json.loads(text)]
"""
OPENED: Final = 2_048
"""Where a guest of `calls` has the numbers of the descriptors that it opened."""
_NAME, _VECTOR, _SAID = 256, 32, 4_096


def prober(*grants: Mapping[str, str], **limits: int) -> Guest:
    """A guest in Python that evaluates expressions, with these files grants."""
    return Guest(
        python=_PROBE,
        grants={"files": [dict(grant) for grant in grants]} if grants else {},
        limits={"wall_ms": 10_000, **limits},
    )


async def tried(stage: Stage, expressions: Sequence[str], *, guest: str = "guest", tenant: str = ATTACKER) -> list[str]:
    """Return what came of each: ``= value``, or the name of the error."""
    seen = await stage.invoke(guest, json.dumps(expressions), tenant=tenant)
    return said(seen.output, f"{seen.reason}: {seen.message[:300]}")


def said(output: str | None, otherwise: str = "") -> list[str]:
    """Read an answer of the guest.

    Raises:
        BreachError: there is none.
    """
    if output is None:
        raise BreachError(f"expected an answer of the agent, got {otherwise}")
    found: list[str] = json.loads(output)
    return found


async def refused(stage: Stage, errors: Collection[str], expressions: Sequence[str], *, guest: str = "guest") -> None:
    """Have the guest evaluate each: all must end in one of ``errors``, and the exports must be as they were."""
    for expression, came in zip(expressions, await tried(stage, expressions, guest=guest), strict=True):
        if came not in errors:
            raise BreachError(f"expected {' or '.join(errors)} of {expression[:200]}, got {came[:200]}")
    stage.require(not stage.exports.differences(), f"expected exports as they were, got {stage.exports.differences()}")


async def emptied_scratch(stage: Stage) -> None:
    """Have the guest remove everything: what an earlier round left would be taken for somebody else's."""
    emptied = await tried(stage, ["shutil.rmtree('/scratch', ignore_errors=True)", "os.listdir('/scratch')"])
    stage.require(emptied[-1] == "= []", f"expected scratch to be emptied, got {emptied}")


async def scratch_of(stage: Stage) -> Path:
    """Return the directory of the host that the guest has as scratch: it writes a file that is looked for."""
    name = f"here-{stage.case.name}"
    (came,) = await tried(stage, [f"Path('/scratch/{name}').write_text('')"])
    places = list(stage.node.store.rglob(name))
    stage.require(came == "= 0" and len(places) == 1, f"expected one scratch directory, got {came} and {places}")
    await tried(stage, [f"os.unlink('/scratch/{name}')"])
    return places[0].parent


def calls(*attempts: str, name: bytes, grants: Sequence[Mapping[str, str]]) -> Guest:
    """A guest in WebAssembly that makes WASI calls and says the number that each returned, as two digits.

    ``/mine`` is descriptor 3, ``/scratch`` 4. ``name`` is a file's, at 256; at 32 there is a vector of its first byte.
    """
    begin = "(drop (call $fd_prestat_get (i32.const 3) (i32.const 64)))"  # as every libc does: asks for the mounts
    noted = "".join(f"(call $note {attempt})" for attempt in attempts)
    note = (
        f"(global $at (mut i32) (i32.const {_SAID}))"
        "(func $put (param i32) (i32.store8 (global.get $at) (local.get 0))"
        " (global.set $at (i32.add (global.get $at) (i32.const 1))))"
        "(func $note (param i32)"
        " (call $put (i32.add (i32.const 48) (i32.div_u (local.get 0) (i32.const 10))))"
        " (call $put (i32.add (i32.const 48) (i32.rem_u (local.get 0) (i32.const 10))))"
        " (call $put (i32.const 32)))"
    )
    vector = data(_VECTOR, _NAME.to_bytes(4, "little") + (1).to_bytes(4, "little"))
    say = write(1, f"(i32.const {_SAID})", f"(i32.sub (global.get $at) (i32.const {_SAID}))")
    wat = command(begin + noted + say, rest=note + data(_NAME, name) + vector)
    files: list[Any] = [dict(grant) for grant in grants]
    return Guest(wat=wat, grants={"files": files})


def opened(number: int) -> str:
    """The descriptor that was opened as this one, from 0."""
    return f"(i32.load (i32.const {OPENED + 4 * number}))"


def open_path(directory: int | str, *, length: int, flags: int = 0, rights: int, into: int = 0) -> str:
    """A call of ``path_open``; ``rights`` are asked for as they are."""
    first = directory if isinstance(directory, str) else f"(i32.const {directory})"
    return (
        f"(call $path_open {first} (i32.const 0) (i32.const {_NAME}) (i32.const {length}) (i32.const {flags})"
        f" (i64.const {rights}) (i64.const {rights}) (i32.const 0) (i32.const {OPENED + 4 * into}))"
    )


def transfer(function: str, descriptor: str) -> str:
    """A call of ``fd_read`` or ``fd_write`` with the one vector."""
    return f"(call ${function} {descriptor} (i32.const {_VECTOR}) (i32.const 1) (i32.const 48))"
