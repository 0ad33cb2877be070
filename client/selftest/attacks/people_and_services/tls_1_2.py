"""A caller that offers TLS 1.2 at most, with a good certificate.

Source: grpc servers accept it. Expected: TLS_REQUIRED, or no connection.
"""

import asyncio
import ssl

from client.selftest.attack import Attack
from client.selftest.callers import call_over_tls_1_2
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    port = int(stage.node.address.rpartition(":")[2])
    method = "/agentfactory.agent.v1.AgentService/ListTemplates"
    try:
        version, received = await asyncio.to_thread(call_over_tls_1_2, port, method, stage.world.service("mallory"))
    except (OSError, ssl.SSLError):
        return
    stage.note(received)
    stage.require(version == "TLSv1.2", f"expected to have tried TLS 1.2, got {version}")
    stage.require(b"attacks/ordinary" not in received, "expected no answer over TLS 1.2")
    stage.require(b"TLS" in received or not received, f"expected a refusal that says why, got {received[:200]!r}")


ATTACK = Attack(run=_run)
