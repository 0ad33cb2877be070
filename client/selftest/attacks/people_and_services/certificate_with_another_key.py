"""Another tenant's certificate, which is no secret, with the attacker's own public key put into it.

Source: CWE-295, CWE-347. Expected: no connection: the authority's signature is over the owner's key.
"""

import grpc

from client.selftest.attack import Attack
from client.selftest.callers import is_let_in, with_key_of
from client.selftest.stage import ATTACKER, OTHER, Stage


async def _run(stage: Stage) -> None:
    mine, theirs = stage.world.service(ATTACKER), stage.world.service(OTHER)
    for chain, is_honest in ((mine.certificate.read_bytes(), True), (with_key_of(theirs, mine), False)):
        credentials = grpc.ssl_channel_credentials(
            stage.world.authority.certificate, private_key=mine.key.read_bytes(), certificate_chain=chain
        )
        came_in = await is_let_in(stage, credentials)
        stage.require(came_in is is_honest, f"expected {is_honest} for a certificate as {theirs}, got {came_in}")


ATTACK = Attack(run=_run)
