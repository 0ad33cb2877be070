"""A caller that shows no certificate at all.

Source: CWE-306. Expected: no connection.
"""

import grpc.aio

from client.selftest.attack import Attack
from client.selftest.callers import is_let_in
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    authorities = stage.world.service("mallory").authorities.read_bytes()
    credentials = grpc.ssl_channel_credentials(root_certificates=authorities)
    stage.require(not await is_let_in(stage, credentials), "expected no answer without a certificate")


ATTACK = Attack(run=_run)
