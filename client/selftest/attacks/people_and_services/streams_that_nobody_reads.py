"""Streams of logs that are opened and not read.

Source: CWE-400. Expected: their guests end at their limits; others are served.
"""

import asyncio
import contextlib

import grpc.aio
from agentfactory.agent.v1 import agent_pb2
from agentfactory.agent.v1.agent_pb2_grpc import AgentServiceStub

from client.selftest.attack import Attack, Guest, Timed
from client.selftest.guests import command, write
from client.selftest.stage import Stage

_WAT = command("(loop $more " + write(2, "(i32.const 0)", "(i32.const 60000)") + "(br $more))")


async def _run(stage: Stage) -> None:
    request = agent_pb2.StreamInvokeRequest(
        template=agent_pb2.InvokeTemplateRequest(template=stage.case.template("guest"), input="x")
    )
    async with stage.channel(typed=False) as channel:
        stub = AgentServiceStub(channel)
        calls = [stub.StreamInvoke(request, timeout=10.0) for _ in range(10)]
        await asyncio.sleep(0.3)
        for call in calls:
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
                async for event in call:
                    stage.note(event.SerializeToString())


ATTACK = Attack(
    guests={"guest": Guest(wat=_WAT, limits={"wall_ms": 1_000, "log_bytes": 200_000})},
    run=_run,
    timed=Timed.OTHER_TENANTS,
)
