"""Request headers of a megabyte, and a thousand headers.

Source: CVE-2023-44487 and its relatives. Expected: refused; the connection or the call, nothing else.
"""

import grpc.aio
from agentfactory.agent.v1 import agent_pb2
from agentfactory.agent.v1.agent_pb2_grpc import AgentServiceStub

from client.selftest.attack import Attack
from client.selftest.stage import Stage

_HEADERS = ((("x-large", "x" * (1 << 20)),), tuple((f"x-{number}", "x" * 100) for number in range(1_000)))


async def _run(stage: Stage) -> None:
    for headers in _HEADERS:
        async with stage.channel(typed=False) as channel:
            stub = AgentServiceStub(channel)
            try:
                await stub.ListTemplates(agent_pb2.ListTemplatesRequest(), metadata=headers, timeout=5.0)
            except grpc.aio.AioRpcError as error:
                stage.note(str(error.details()))
                continue
            stage.require(False, f"expected a refusal of {sum(len(value) for _, value in headers)} bytes of headers")


ATTACK = Attack(run=_run)
