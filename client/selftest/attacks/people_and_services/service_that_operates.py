"""A service, and a person who is no operator, that drain the node.

Source: CWE-269. Expected: PERMISSION_DENIED for both; the node goes on serving.
"""

from agentfactory.node.v1 import node_pb2
from agentfactory.node.v1.node_pb2_grpc import NodeServiceStub

from client.selftest.attack import Attack, fails
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    for tls in (stage.world.service("mallory"), stage.world.person("stranger")):
        async with stage.channel(tls) as channel:
            stub = NodeServiceStub(channel)
            seen = await stage.attempt(lambda: stub.Drain(node_pb2.DrainRequest(), timeout=5.0))  # noqa: B023
            fails("PERMISSION_DENIED").check(seen)


ATTACK = Attack(run=_run)
