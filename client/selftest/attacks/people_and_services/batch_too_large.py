"""A batch of more agents than one request may create.

Source: CWE-770. Expected: a typed refusal; none is created.
"""

from agentfactory.agent.v1 import agent_pb2
from agentfactory.agent.v1.agent_pb2_grpc import AgentServiceStub

from client.selftest.attack import Attack, Guest
from client.selftest.guests import ECHO
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    one = agent_pb2.CreateAgentRequest(template=stage.case.template("guest"))
    request = agent_pb2.BatchCreateAgentsRequest(requests=[one] * 20_000)
    async with stage.channel() as channel:
        stub = AgentServiceStub(channel)
        seen = await stage.attempt(lambda: stub.BatchCreateAgents(request, timeout=10.0))
    stage.require(seen.output is None and seen.reason == "INVALID_REQUEST", f"expected INVALID_REQUEST, got {seen}")
    made = [record async for record in stage.factory().list_agents(template=stage.case.template("guest"))]
    stage.require(not made, f"expected no agent, got {len(made)}")


ATTACK = Attack(guests={"guest": Guest(wat=ECHO)}, run=_run)
