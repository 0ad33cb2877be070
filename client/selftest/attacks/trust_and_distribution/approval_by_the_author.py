"""A template that its own author approved, together with one other reviewer where two are needed.

Source: four eyes. Expected: APPROVAL_BY_AUTHOR: the author's signature does not count.
"""

from client.selftest.attack import Attack
from client.selftest.forgeries import approval_is_refused
from client.selftest.stage import Stage
from client.selftest.world import GUARDED, REVIEWERS, Approval


async def _run(stage: Stage) -> None:
    own = Approval(persons=REVIEWERS, author=REVIEWERS[0])
    await approval_is_refused(stage, f"{GUARDED}/victim", own, "APPROVAL_BY_AUTHOR", "APPROVAL_UNDER_THRESHOLD")


ATTACK = Attack(run=_run)
