"""Origins whose names mean this host, or a name inside of some network.

Source: CWE-918. Expected: each is refused when the template is read; what resolves to such an address later is denied.
"""

from client.selftest.attack import Attack
from client.selftest.origins import never_reached
from client.selftest.stage import Stage

_ORIGINS = ("https://localhost", "https://localhost:8443", "http://localhost", "https://metadata", "https://router")


async def _run(stage: Stage) -> None:
    for origin in _ORIGINS:
        await never_reached(stage, origin)


ATTACK = Attack(run=_run)
