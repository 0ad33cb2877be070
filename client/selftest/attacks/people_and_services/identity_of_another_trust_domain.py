"""A service of another trust domain, whose certificate this authority signed by mistake.

Source: CWE-297. Expected: refused by name, though the chain is valid.
"""

import grpc.aio

from client.selftest.attack import Attack
from client.selftest.callers import forged_certificate, reason_for
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    key, certificate = forged_certificate(stage.world.authority, ["spiffe://evil.example/tenant/acme/service/web"])
    credentials = grpc.ssl_channel_credentials(
        stage.world.authority.certificate, private_key=key, certificate_chain=certificate
    )
    reason = await reason_for(stage, credentials)
    stage.require(reason == "UNAUTHENTICATED", f"expected UNAUTHENTICATED, got {reason or 'an answer'}")


ATTACK = Attack(run=_run)
