"""Templates, agents, invocations and page tokens whose names are paths, queries, escapes and megabytes.

Source: CWE-22, CWE-89, CWE-117. Expected: a typed refusal for each, printable and short.
"""

from agentfactory.agent.v1 import agent_pb2
from agentfactory.agent.v1.agent_pb2_grpc import AgentServiceStub

from client.selftest.attack import Attack
from client.selftest.stage import Stage

_NAMES = (
    "../../etc/passwd", "attacks/keeper' OR 1=1 --", "\x1b[2J\r\n", "attacks/\u043eordinary", "%00",
    "x" * 100_000, "\0",
    "nodes/node/agents/../x", "nodes/other/agents/x", "attacks/*", "*/*", "attacks/ordinary@9.9.9",
)  # fmt: skip


async def _run(stage: Stage) -> None:
    async with stage.channel() as channel:
        stub = AgentServiceStub(channel)
        for name in _NAMES:
            for call in (
                lambda: stub.InvokeTemplate(agent_pb2.InvokeTemplateRequest(template=name, input="x"), timeout=5.0),  # noqa: B023
                lambda: stub.InvokeAgent(agent_pb2.InvokeAgentRequest(name=name, input="x"), timeout=5.0),  # noqa: B023
                lambda: stub.GetAgent(agent_pb2.GetAgentRequest(name=name), timeout=5.0),  # noqa: B023
                lambda: stub.GetInvocation(agent_pb2.GetInvocationRequest(invocation_id=name), timeout=5.0),  # noqa: B023
                lambda: stub.ListAgents(agent_pb2.ListAgentsRequest(template=name), timeout=5.0),  # noqa: B023
                lambda: stub.ListInvocations(agent_pb2.ListInvocationsRequest(agent=name), timeout=5.0),  # noqa: B023
                lambda: stub.CreateAgent(agent_pb2.CreateAgentRequest(template=name, request_id="r"), timeout=5.0),  # noqa: B023
            ):
                seen = await stage.attempt(call)
                stage.require(seen.output is None, f"expected a refusal of {name[:40]!r}, got {seen.output}")
                stage.require(seen.reason != "INTERNAL", f"expected a typed refusal of {name[:40]!r}, got {seen}")
                stage.require(len(seen.message) < 10_000, f"expected a short message, got {len(seen.message)}")


ATTACK = Attack(run=_run)
