"""The binding's secret, asked for on paths and with methods that the charter did not bind it to.

Source: CWE-863. Expected: denied; nothing is sent.
"""

from client.selftest.attack import Attack
from client.selftest.requests import BOUND, requester, require_refused
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    await require_refused(stage, "/free/echo", ["denied"])
    await require_refused(stage, "/bound/echo", ["denied"], method="POST")
    await require_refused(stage, "/bound/../free/echo", ["denied"])
    await require_refused(stage, "/boundary/echo", ["denied"])


ATTACK = Attack(guests={"guest": requester(BOUND)}, run=_run)
