"""Native code in the place of a worker: each attempt is a process with a worker's jail, beside the node.

The jail is `sandbox.process.start`'s and `sandbox.jail.confine`'s, which the node's own workers are in. An attempt must
end its process with SIGSYS, or be refused as `REFUSALS` says; the victim must live, and the file must be as it was.
"""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from client.selftest import native_program
from client.selftest.attack import Attack, BreachError, Timed
from client.selftest.stage import Stage
from sandbox import process

REFUSALS: Final[Mapping[str, frozenset[str]]] = {
    "open a file of the host": frozenset({"ENOENT", "EACCES"}),
    "open /etc/passwd": frozenset({"ENOENT", "EACCES"}),
    "open the root": frozenset({"EACCES"}),
    "open the environment of the victim": frozenset({"ENOENT", "EACCES"}),
    "write into a memfd": frozenset({"EFBIG"}),
}
"""What is refused instead of killed: opening to read is part of a worker's filter, and meets an empty file system."""
_KEPT: Final = "kept as it is"
_ENDS_WITHIN_S: Final = 20.0


def attempted(*names: str) -> Attack:
    """Each of these attempts, one process after the other.

    Nobody is timed: starting interpreters beside the node costs the machine, which is not what is shown.
    """

    async def run(stage: Stage) -> None:
        await prevented(stage.scratch, names)

    return Attack(run=run, timed=Timed.NOBODY)


async def prevented(directory: Path, names: Sequence[str]) -> None:
    """Make each attempt, with a victim of their own and with a file in ``directory``, which is empty.

    Raises:
        BreachError: an attempt was not prevented, or this host cannot prevent it and it was not made.
    """
    path = directory / "file"
    path.write_text(_KEPT, encoding="ascii")
    victim = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import time; time.sleep(120)", stdin=asyncio.subprocess.DEVNULL
    )
    try:
        for name, holds in [("nothing", _does_nothing), *((name, _holds) for name in names)]:
            said, status = await _attempt(name, victim.pid, str(path))
            _require(holds(name, said, status), f"expected {name!r} to be prevented, got {said!r} and status {status}")
        _require(victim.returncode is None, "expected the victim to live, got its end")
        found = _contents(directory)
        _require(found == {path.name: _KEPT}, f"expected one file that is as it was, got {found}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            victim.kill()
        await victim.wait()


def _require(holds: bool, text: str) -> None:  # noqa: FBT001
    if not holds:
        raise BreachError(text)


def _contents(directory: Path) -> dict[str, str]:
    return {each.name: each.read_text(encoding="ascii", errors="replace") for each in directory.iterdir()}


def _does_nothing(_name: str, said: str, status: int) -> bool:
    """A process that does nothing lives: else the deaths of the others would show nothing."""
    return (said, status) == ("done", 0)


def _holds(name: str, said: str, status: int) -> bool:
    if name in REFUSALS:
        return said in REFUSALS[name] and status == 0
    return (said, status) == ("", -signal.SIGSYS)


async def _attempt(name: str, victim: int, path: str) -> tuple[str, int]:
    """Return what the process said, and how it ended (negative: the signal).

    Raises:
        BreachError: this host does not lock processes away as far as every attempt needs, or it does not end.
    """
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        with theirs:
            child = await process.start(native_program.__name__, theirs, (name, str(victim), path))
        try:
            async with asyncio.timeout(_ENDS_WITHIN_S):
                said = b""
                while piece := await asyncio.get_running_loop().sock_recv(ours, 4_096):
                    said += piece
                status = await child.wait()
        except TimeoutError:
            raise BreachError(f"expected {name!r} to end within {_ENDS_WITHIN_S:.0f} s, got none") from None
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)
                await child.wait()
    text = said.decode("utf-8", "backslashreplace")
    if text.startswith(native_program.UNCONFINED):
        level = text.rpartition(" ")[2]
        raise BreachError(f"needs the level {native_program.NEEDED}, this host reaches {level}: see docs/isolation.md")
    return text, status
