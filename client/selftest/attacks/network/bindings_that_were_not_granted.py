"""URLs, addresses and other templates' bindings where the name of a binding is expected.

Source: CWE-918. Expected: denied or invalid; nothing is sent.
"""

from client.selftest.attack import Attack
from client.selftest.requests import FREE, requester, require_refused
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    for binding in ("other", "http://127.0.0.1", "Service", "service\0", "", "../service", stage.service.origin):
        await require_refused(stage, "/free/plain", ["denied", "invalid"], binding=binding)


ATTACK = Attack(guests={"guest": requester(FREE)}, run=_run)
