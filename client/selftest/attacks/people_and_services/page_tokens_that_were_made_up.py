"""Page tokens and page sizes that no answer ever contained.

Source: CWE-502, CWE-89. Expected: a refusal, or a page of the caller's own; never an internal error.
"""

import base64

from agentfactory.agent.v1 import agent_pb2
from agentfactory.agent.v1.agent_pb2_grpc import AgentServiceStub

from client.selftest.attack import Attack
from client.selftest.stage import OTHER, Stage

_TOKENS = ("x", "\0", "' OR 1=1 --", "A" * 10_000, base64.b64encode(b"\xff\xfe").decode(), "!!!!", "\u00e9")


async def _run(stage: Stage) -> None:
    await stage.factory(OTHER).invoke_template("attacks/ordinary", "theirs")
    async with stage.channel() as channel:
        stub = AgentServiceStub(channel)
        for token in _TOKENS:
            for size in (0, -1, 2**31 - 1):
                agents = agent_pb2.ListAgentsRequest(page_size=size, page_token=token)
                records = agent_pb2.ListInvocationsRequest(page_size=size, page_token=token)
                for seen in (
                    await stage.attempt(lambda: stub.ListAgents(agents, timeout=5.0)),  # noqa: B023
                    await stage.attempt(lambda: stub.ListInvocations(records, timeout=5.0)),  # noqa: B023
                ):
                    stage.require(seen.reason != "INTERNAL", f"expected no internal error of {token[:40]!r}")
                    stage.require(f"tenant/{OTHER}/" not in (seen.output or ""), "expected nothing of another tenant")


ATTACK = Attack(run=_run)
