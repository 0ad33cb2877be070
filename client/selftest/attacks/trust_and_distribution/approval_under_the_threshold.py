"""A template of a domain that needs two persons, signed by one.

Source: the quorum. Expected: APPROVAL_UNDER_THRESHOLD.
"""

from client.selftest.attack import Attack
from client.selftest.forgeries import approval_is_refused
from client.selftest.stage import Stage
from client.selftest.world import GUARDED, REVIEWERS, Approval


async def _run(stage: Stage) -> None:
    one = Approval(persons=REVIEWERS[:1])
    await approval_is_refused(stage, f"{GUARDED}/victim", one, "APPROVAL_UNDER_THRESHOLD", "APPROVAL_ONE_PERSON")


ATTACK = Attack(run=_run)
