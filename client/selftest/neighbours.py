"""Ordinary invocations beside an attack, from a process of their own: the driver of attacks disturbs none of them.

One neighbour shares the attacker's tenant, and so its worker; the other has a worker of its own. The child speaks lines
of JSON: ``{"tenant": {"certificate", …}, "address"}`` first, then ``start`` and ``stop`` in turn; each ``stop`` is
answered with what was measured since ``start``.
"""

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from service.tls import TlsFiles

TEXT: Final = "an ordinary question"
TEMPLATE: Final = "attacks/ordinary"
CALLS_MIN: Final = 6
"""Of each neighbour between start and stop: a short attack is followed by some, whose delay it may have caused."""
_PACE_S, _SLOW_PACE_S, _QUICK_CALLS = 0.001, 0.025, 50  # a long attack needs no more calls, but the machine for itself
_CALL_TIMEOUT_S: Final = 10.0
_ANSWER_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Beside:
    """What the neighbours of one tenant saw: milliseconds of each call, and what was wrong with others."""

    milliseconds: tuple[float, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def p99_ms(self) -> float:
        """The 99th percentile; of fewer than a hundred calls the slowest."""
        ordered = sorted(self.milliseconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] if ordered else 0.0


Measured = Mapping[str, Beside]
"""By tenant."""


@dataclass(slots=True)
class Neighbours:
    """The child process, as the suite sees it."""

    address: str
    tenants: Mapping[str, TlsFiles]
    _child: asyncio.subprocess.Process | None = field(default=None)

    async def __aenter__(self) -> Self:
        self._child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            __name__,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parent.parent.parent,
            limit=16 << 20,
        )
        tenants = {
            name: {"certificate": str(tls.certificate), "key": str(tls.key), "authorities": str(tls.authorities)}
            for name, tls in self.tenants.items()
        }
        await self._say(json.dumps({"address": self.address, "tenants": tenants}))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._child is not None and self._child.returncode is None:
            self._child.kill()
            await self._child.wait()

    async def start(self) -> None:
        """Begin to invoke."""
        await self._say("start")

    async def stop(self) -> Measured:
        """Stop, and return what was measured since `start`."""
        await self._say("stop")
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            line = await self._reading.readline()
        return {
            tenant: Beside(tuple(found["milliseconds"]), tuple(found["problems"]))
            for tenant, found in json.loads(line).items()
        }

    async def measure(self, seconds: float) -> Measured:
        """Return what is measured while nothing else is done."""
        await self.start()
        await asyncio.sleep(seconds)
        return await self.stop()

    @property
    def _reading(self) -> asyncio.StreamReader:
        if self._child is None or self._child.stdout is None:
            raise RuntimeError("expected neighbours that were started")
        return self._child.stdout

    async def _say(self, line: str) -> None:
        if self._child is None or self._child.stdin is None:
            raise RuntimeError("expected neighbours that were started")
        self._child.stdin.write(line.encode() + b"\n")
        await self._child.stdin.drain()


# --- the child


async def _invoke_until(stopped: asyncio.Event, factory: Any) -> dict[str, list[Any]]:
    milliseconds: list[float] = []
    problems: list[str] = []
    while not stopped.is_set() or len(milliseconds) + len(problems) < CALLS_MIN:
        started = time.perf_counter()
        try:
            answer = await factory.invoke_template(TEMPLATE, TEXT, timeout_s=_CALL_TIMEOUT_S)
        except Exception as error:  # noqa: BLE001 - whatever it is, a neighbour noticed it
            problems.append(f"{type(error).__name__}: {error}"[:300])
            if len(problems) >= CALLS_MIN:
                break
        else:
            milliseconds.append((time.perf_counter() - started) * 1e3)
            if answer.output != TEXT:
                problems.append(f"expected its own input, got {answer.output[:100]!r}")
        await asyncio.sleep(_PACE_S if len(milliseconds) < _QUICK_CALLS else _SLOW_PACE_S)
    return {"milliseconds": milliseconds, "problems": problems}


async def _serve() -> None:
    from client.aio import AsyncAgentFactory

    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    first = json.loads(await reader.readline())
    factories = {
        tenant: AsyncAgentFactory.connect(first["address"], **files) for tenant, files in first["tenants"].items()
    }
    while await reader.readline():
        stopped = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            running = {
                tenant: group.create_task(_invoke_until(stopped, factory)) for tenant, factory in factories.items()
            }
            is_last = not await reader.readline()
            stopped.set()
        if is_last:
            return
        sys.stdout.write(json.dumps({tenant: task.result() for tenant, task in running.items()}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_serve())
