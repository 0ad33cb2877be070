"""Methods and services that do not exist, and paths that look like others.

Source: CWE-20. Expected: UNIMPLEMENTED for each.
"""

import grpc
import grpc.aio

from client.selftest.attack import Attack
from client.selftest.stage import Stage

_SERVICE = "agentfactory.agent.v1.AgentService"
_PATHS = (
    f"/{_SERVICE}/Nothing", "/Nothing/Nothing", f"/{_SERVICE}/invoketemplate", f"/{_SERVICE}/InvokeTemplate/", "//",
    f"/{_SERVICE}%2fInvokeTemplate", "/" + "x" * 4_000,
)  # fmt: skip


async def _run(stage: Stage) -> None:
    async with stage.channel(typed=False) as channel:
        for path in _PATHS:
            try:
                call = channel.unary_unary(path, request_serializer=bytes, response_deserializer=bytes)
                await call(b"", timeout=5.0)
            except grpc.aio.AioRpcError as error:
                code = error.code()
                wanted = {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED}
                stage.require(code in wanted, f"expected UNIMPLEMENTED for {path[:40]}, got {code}")
                continue
            stage.require(False, f"expected no method {path[:40]}")


ATTACK = Attack(run=_run)
