"""Metadata of tens of megabytes, of which the signed part is honest: endless data.

Source: TUF, endless data. Expected: refused by its size, before it is parsed.
"""

from client.selftest.attack import Attack
from client.selftest.forgeries import forge
from client.selftest.stage import Stage

_BYTES = 30 << 20


async def _run(stage: Stage) -> None:
    small = forge(stage)
    for name in ("timestamp.json", "snapshot.json"):
        endless = small.changed(name, lambda data: data[:-1] + b" " * _BYTES + data[-1:])
        await small.refused(endless, "METADATA_INVALID", "METADATA_MISMATCH", "BUNDLE_INVALID")


ATTACK = Attack(run=_run)
