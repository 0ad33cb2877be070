"""Workers of a tenant of their own, and how they are made to die."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Final

from agentfactory.node.v1 import node_pb2
from agentfactory.node.v1.node_pb2_grpc import NodeServiceStub

from client.selftest.attack import Answers, Guest, fails
from client.selftest.guests import ECHO, SLEEP_FOR_EVER
from client.selftest.stage import Stage
from client.values import Limits

GUESTS: Final[Mapping[str, Guest]] = {
    "sleeper": Guest(wat=SLEEP_FOR_EVER, limits={"wall_ms": 20_000}),
    "echo": Guest(wat=ECHO),
}
_SLEEPERS: Final = 3
_FOUND_WITHIN_S: Final = 10.0
_PATIENCE_S: Final = 1.0
_POLL_S: Final = 0.02


async def worker_pids(stage: Stage, tenant: str, *, in_flight: int = 0) -> list[int]:
    """Return the processes that serve ``tenant`` with at least so many invocations in them."""
    async with stage.channel(stage.world.person()) as channel:
        status = await NodeServiceStub(channel).GetNodeStatus(node_pb2.GetNodeStatusRequest(), timeout=5.0)
    return [worker.pid for worker in status.workers if worker.tenant == tenant and worker.in_flight >= in_flight]


async def kill_worker_of(stage: Stage, tenant: str, number: signal.Signals, *, in_flight: int = 1) -> None:
    """Send a signal to the worker of ``tenant`` once it runs so many; again until it dies: engines handle a first one.

    A worker that is the first process of its own PID namespace does not hear what others send it, but for SIGKILL and
    SIGSTOP (pid_namespaces(7)); it is killed after a second then. One that is only stopped is not waited for.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + _FOUND_WITHIN_S
    while not (pids := await worker_pids(stage, tenant, in_flight=in_flight)):
        stage.require(loop.time() < until, f"expected a worker of {tenant} with {in_flight} in flight, got none")
        await asyncio.sleep(_POLL_S)
    alive, patient_until = pids, loop.time() + _PATIENCE_S
    while alive:
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number if loop.time() < patient_until else signal.SIGKILL)
        if number is signal.SIGSTOP:
            return
        stage.require(loop.time() < until, f"expected the worker to die of {number.name} within {_FOUND_WITHIN_S} s")
        await asyncio.sleep(_POLL_S)
        alive = [pid for pid in await worker_pids(stage, tenant) if pid in pids]


async def die_of(
    stage: Stage, number: signal.Signals, *, reasons: Sequence[str] = ("CRASH",), wall_ms: int = 0
) -> None:
    """Signal the worker of a new tenant with sleepers in it; they must fail with ``reasons`` and the next must run."""
    tenant = f"dies-of-{number.name.lower()}"
    limits = Limits(wall_ms=wall_ms)
    Answers("warm").check(await stage.invoke("echo", "warm", tenant=tenant))
    asleep = [asyncio.ensure_future(stage.invoke("sleeper", tenant=tenant, limits=limits)) for _ in range(_SLEEPERS)]
    await kill_worker_of(stage, tenant, number, in_flight=_SLEEPERS)
    for seen in await asyncio.gather(*asleep):
        fails(*reasons).check(seen)
    Answers("still here").check(await stage.invoke("echo", "still here", tenant=tenant))
