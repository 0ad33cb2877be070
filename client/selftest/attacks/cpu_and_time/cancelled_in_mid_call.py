"""Callers that go away while their guests sleep or call the host.

Source: CWE-772. Expected: the guests are stopped; nothing of them is left in flight.
"""

import asyncio
import contextlib

from agentfactory.node.v1 import node_pb2
from agentfactory.node.v1.node_pb2_grpc import NodeServiceStub

from client.selftest.attack import Attack, Guest
from client.selftest.guests import SLEEP_FOR_EVER
from client.selftest.stage import Stage

_NEIGHBOURS = 2
_UNTIL_S = 5.0


async def _run(stage: Stage) -> None:
    callers = [asyncio.ensure_future(stage.invoke()) for _ in range(20)]
    await asyncio.sleep(0.1)
    for caller in callers:
        caller.cancel()
    for caller in callers:
        with contextlib.suppress(asyncio.CancelledError):
            await caller
    async with stage.channel(stage.world.person()) as channel:
        asked = NodeServiceStub(channel)
        until = asyncio.get_running_loop().time() + _UNTIL_S
        while True:
            status = await asked.GetNodeStatus(node_pb2.GetNodeStatusRequest(), timeout=5.0)
            if status.in_flight <= _NEIGHBOURS:
                return
            late = asyncio.get_running_loop().time() > until
            stage.require(not late, f"expected nothing in flight after {_UNTIL_S} s, got {status.in_flight}")
            await asyncio.sleep(0.1)


ATTACK = Attack(guests={"guest": Guest(wat=SLEEP_FOR_EVER, limits={"wall_ms": 30_000})}, run=_run)
