"""A template that was approved with a key that no reviewer has.

Source: CWE-347. Expected: APPROVAL_STRANGER, or under the threshold.
"""

from client.selftest.attack import Attack
from client.selftest.forgeries import approval_is_refused
from client.selftest.stage import Stage
from client.selftest.world import Approval, new_signer


async def _run(stage: Stage) -> None:
    stranger = Approval(persons=(), strangers=(new_signer(),))
    await approval_is_refused(stage, "attacks/victim", stranger, "APPROVAL_STRANGER", "APPROVAL_UNDER_THRESHOLD")


ATTACK = Attack(run=_run)
