"""Requests whose bytes are no message: random, truncated, nested without end.

Source: CWE-20. Expected: a typed refusal; no word of the node's insides.
"""

import grpc.aio

from client.selftest.attack import Attack
from client.selftest.stage import Stage

_METHOD = "/agentfactory.agent.v1.AgentService/InvokeTemplate"
_MESSAGES = (b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x0f", b"\x0b" * 10_000, b"\x0a\x02\xc3\x28", b"\x08" * 11)


async def _run(stage: Stage) -> None:
    async with stage.channel(typed=False) as channel:
        call = channel.unary_unary(_METHOD, request_serializer=bytes, response_deserializer=bytes)
        for message in _MESSAGES:
            try:
                stage.note(await call(message, timeout=5.0))
            except grpc.aio.AioRpcError as error:
                stage.note(str(error.details()))
                stage.require("Traceback" not in str(error.details()), "expected no trace of the node's insides")
                continue
            stage.require(False, f"expected a refusal of {message[:10]!r}")


ATTACK = Attack(run=_run)
