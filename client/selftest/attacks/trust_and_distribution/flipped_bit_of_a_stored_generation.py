"""One bit of the generation in the node's store, before it starts.

Source: CWE-354. Expected: it does not serve it, and says why.
"""

from client.selftest.attack import Attack
from client.selftest.forgeries import flip, forge
from client.selftest.stage import Stage
from client.selftest.starts import refuses_to_serve


async def _run(stage: Stage) -> None:
    small = forge(stage)
    await small.taken(small.first)
    (bundle,) = (small.node.store / "generations").glob("*/bundle")
    flip(bundle)
    await refuses_to_serve(stage, small.node, "seal")


ATTACK = Attack(run=_run)
