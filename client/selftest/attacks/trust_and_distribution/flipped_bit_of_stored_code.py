"""One bit of a module in the node's store, before it starts.

Source: CWE-354. Expected: it does not run it, and says why.
"""

from client.selftest.attack import Attack
from client.selftest.forgeries import flip, forge
from client.selftest.stage import Stage
from client.selftest.starts import refuses_to_serve


async def _run(stage: Stage) -> None:
    small = forge(stage)
    await small.taken(small.first)
    flip(small.node.store / "blobs" / small.template.sha256, at=0.9)
    await refuses_to_serve(stage, small.node, "blob")


ATTACK = Attack(run=_run)
