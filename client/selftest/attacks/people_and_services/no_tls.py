"""A caller that speaks HTTP/2 without TLS.

Source: CWE-319. Expected: no answer.
"""

import grpc.aio
from agentfactory.agent.v1 import agent_pb2
from agentfactory.agent.v1.agent_pb2_grpc import AgentServiceStub

from client.selftest.attack import Attack
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    async with grpc.aio.insecure_channel(stage.node.address) as channel:
        try:
            await AgentServiceStub(channel).ListTemplates(agent_pb2.ListTemplatesRequest(), timeout=2.0)
        except grpc.aio.AioRpcError:
            return
    stage.require(False, "expected no answer without TLS")


ATTACK = Attack(run=_run)
