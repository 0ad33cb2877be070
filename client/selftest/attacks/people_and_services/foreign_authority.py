"""A service whose certificate says the right name, signed by another authority.

Source: CWE-295. Expected: no connection.
"""

from datetime import UTC, datetime

import grpc.aio

from client.selftest.attack import Attack
from client.selftest.callers import is_let_in
from client.selftest.stage import Stage
from client.selftest.world import TRUST_DOMAIN
from service.identity import Identity
from service.local_ca import LocalCa


async def _run(stage: Stage) -> None:
    now = datetime.now(UTC)
    foreign = LocalCa.create(stage.scratch / "ca", trust_domain=TRUST_DOMAIN, now=now)
    issued = foreign.issue(Identity.service(TRUST_DOMAIN, "acme", "service"), now=now)
    credentials = grpc.ssl_channel_credentials(
        stage.world.authority.certificate, private_key=issued.key, certificate_chain=issued.certificate
    )
    stage.require(not await is_let_in(stage, credentials), "expected no answer for a foreign certificate")


ATTACK = Attack(run=_run)
