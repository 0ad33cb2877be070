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
        await _refused(stage, names)

    return Attack(run=run, timed=Timed.NOBODY)


async def _refused(stage: Stage, names: Sequence[str]) -> None:
    path = stage.scratch / "file"
    path.write_text(_KEPT, encoding="ascii")
    victim = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import time; time.sleep(120)", stdin=asyncio.subprocess.DEVNULL
    )
    try:
        calm = await _attempt("nothing", victim.pid, str(path))
        stage.require(calm == ("done", 0), f"expected a process that does nothing to live, got {calm}")
        for name in names:
            said, status = await _attempt(name, victim.pid, str(path))
            stage.require(_holds(name, said, status), f"expected {name!r} to be prevented, got {said!r} and {status}")
        stage.require(victim.returncode is None, "expected the victim to live, got its end")
        kept = path.read_text(encoding="ascii") if path.exists() else "nothing"
        stage.require(kept == _KEPT, f"expected a file that is as it was, got {kept!r}")
        stage.require([each.name for each in stage.scratch.iterdir()] == [path.name], "expected no other file")
    finally:
        with contextlib.suppress(ProcessLookupError):
            victim.kill()
        await victim.wait()


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
