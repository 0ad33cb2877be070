"""An approval that reviewers gave for another environment.

Source: CWE-345. Expected: WRONG_ENVIRONMENT or APPROVAL_MISMATCH.
"""

from dataclasses import replace

from client.selftest.attack import Attack
from client.selftest.forgeries import approval_is_refused
from client.selftest.stage import Stage
from client.selftest.world import Approval


async def _run(stage: Stage) -> None:
    other = Approval(amend=lambda statement: replace(statement, environment="staging"))
    await approval_is_refused(stage, "attacks/victim", other, "WRONG_ENVIRONMENT", "APPROVAL_MISMATCH")


ATTACK = Attack(run=_run)
