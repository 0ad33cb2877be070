"""Further nodes of an attack, started over a store that was tampered with."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from agentfactory.node.v1 import node_pb2
from agentfactory.node.v1.node_pb2_grpc import NodeServiceStub

from client.aio import AsyncAgentFactory
from client.processes import ProcessFailedError
from client.selftest.attack import BreachError
from client.selftest.forgeries import TEMPLATE
from client.selftest.node import Node
from client.selftest.stage import Stage
from service.status import RemoteError
from service.tls import channel_credentials

_ALIVE_TIMEOUT_S: Final = 30.0
_TIMEOUT_S: Final = 10.0


@asynccontextmanager
async def serving(node: Node) -> AsyncIterator[Node]:
    """A node that serves; ended on the way out."""
    try:
        await asyncio.to_thread(node.start)
        yield node
    finally:
        await asyncio.to_thread(node.stop)


async def answer_of(node: Node, text: str) -> str:
    """Ask the node's ordinary agent."""
    tls = node.world.service("acme")
    async with AsyncAgentFactory.connect(
        node.address, certificate=tls.certificate, key=tls.key, authorities=tls.authorities
    ) as factory:
        return (await factory.invoke_template(TEMPLATE, text)).output


async def refuses_to_serve(stage: Stage, node: Node, why: str) -> None:
    """Start the node, which must say that it does not serve, and ``why``; it may also refuse to start."""
    process = await asyncio.to_thread(node.launch)
    try:
        try:
            await asyncio.to_thread(process.wait_alive, timeout_s=_ALIVE_TIMEOUT_S)
        except ProcessFailedError as error:
            said = error.message
        else:
            said = await _state(node)
            await _require_silence(node)
    finally:
        await asyncio.to_thread(node.stop)
    stage.note(said)
    if why.lower() not in said.lower():
        raise BreachError(f"expected a node that does not serve because of {why!r}, got {said[:400]}")


async def _state(node: Node) -> str:
    import grpc.aio

    async with grpc.aio.secure_channel(node.address, channel_credentials(node.world.person())) as channel:
        status = await NodeServiceStub(channel).GetNodeStatus(node_pb2.GetNodeStatusRequest(), timeout=_TIMEOUT_S)
    if status.state == node_pb2.NODE_STATE_SERVING:
        raise BreachError(f"expected a node that does not serve, got one that serves generation {status.generation}")
    return f"{node_pb2.NodeState.Name(status.state)} {status.state_reason} {status.last_refusal}"


async def _require_silence(node: Node) -> None:
    try:
        answer = await answer_of(node, "text")
    except RemoteError:
        return
    raise BreachError(f"expected no answer of a node that does not serve, got {answer!r}")
