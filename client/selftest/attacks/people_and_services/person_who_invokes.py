"""A person's identity where only services, which have a tenant, may come in.

Source: CWE-863. Expected: PERMISSION_DENIED.
"""

from client.selftest.attack import Attack
from client.selftest.callers import reason_for
from client.selftest.stage import Stage
from service.tls import channel_credentials


async def _run(stage: Stage) -> None:
    reason = await reason_for(stage, channel_credentials(stage.world.person()))
    stage.require(reason == "PERMISSION_DENIED", f"expected PERMISSION_DENIED, got {reason or 'an answer'}")


ATTACK = Attack(run=_run)
