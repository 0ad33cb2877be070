"""A service whose certificate has ended an hour ago.

Source: CWE-298. Expected: no connection.
"""

from datetime import UTC, datetime, timedelta

import grpc.aio

from client.selftest.attack import Attack
from client.selftest.callers import is_let_in
from client.selftest.stage import Stage
from client.selftest.world import TRUST_DOMAIN
from service.identity import Identity


async def _run(stage: Stage) -> None:
    issued = stage.world.authority.issue(
        Identity.service(TRUST_DOMAIN, "mallory", "expired"),
        now=datetime.now(UTC) - timedelta(hours=3),
        valid=timedelta(hours=2),
    )
    credentials = grpc.ssl_channel_credentials(
        stage.world.authority.certificate, private_key=issued.key, certificate_chain=issued.certificate
    )
    stage.require(not await is_let_in(stage, credentials), "expected no answer for an expired certificate")


ATTACK = Attack(run=_run)
