"""Files of the node's store that other users of the host could read or replace.

Source: CWE-732. Expected: nobody but the owner may enter the store.
"""

import asyncio
import stat

from client.selftest.attack import Attack
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    mode = (await asyncio.to_thread(stage.node.store.stat)).st_mode
    stage.require(stat.S_IMODE(mode) & 0o077 == 0, f"expected a store of mode 0700, got {stat.filemode(mode)}")


ATTACK = Attack(run=_run)
