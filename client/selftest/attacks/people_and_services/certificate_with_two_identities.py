"""A certificate with two identities: which one would count?

Source: SPIFFE X509-SVID, section 2: exactly one. Expected: refused.
"""

import grpc.aio

from client.selftest.attack import Attack
from client.selftest.callers import forged_certificate, reason_for
from client.selftest.stage import Stage
from client.selftest.world import TRUST_DOMAIN


async def _run(stage: Stage) -> None:
    names = [f"spiffe://{TRUST_DOMAIN}/tenant/{tenant}/service/web" for tenant in ("mallory", "acme")]
    key, certificate = forged_certificate(stage.world.authority, names)
    credentials = grpc.ssl_channel_credentials(
        stage.world.authority.certificate, private_key=key, certificate_chain=certificate
    )
    reason = await reason_for(stage, credentials)
    stage.require(reason == "INVALID_IDENTITY", f"expected INVALID_IDENTITY, got {reason or 'an answer'}")


ATTACK = Attack(run=_run)
