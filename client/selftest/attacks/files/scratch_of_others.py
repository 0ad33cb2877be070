"""Scratch of another tenant, of another agent of the same template, of another template, of an earlier invocation.

Source: CWE-653. Expected: each finds its own, and of an invocation's scratch nothing is left.
"""

import json

from client.selftest.attack import Attack
from client.selftest.exports import BRIEF, SCRATCH
from client.selftest.file_attempts import emptied_scratch, prober, said, tried
from client.selftest.stage import OTHER, Stage

_KEEP = "Path('/scratch/kept').write_text('theirs')"
_LOOK = "os.listdir('/scratch')"
_NOTHING = "= []"


async def _run(stage: Stage) -> None:
    await emptied_scratch(stage)
    (kept,) = await tried(stage, [_KEEP], tenant=OTHER)
    stage.require(kept == "= 6", f"expected the other tenant to write, got {kept}")
    (mine,) = await tried(stage, [_LOOK])
    stage.require(mine == _NOTHING, f"expected nothing of another tenant, got {mine}")

    await tried(stage, [_KEEP])
    (template,) = await tried(stage, [_LOOK], guest="second")
    stage.require(template == _NOTHING, f"expected nothing of another template, got {template}")

    factory, name = stage.factory(), stage.case.template("guest")
    first, second = await factory.create_agent(name), await factory.create_agent(name)
    try:
        await first.process(json.dumps([_KEEP]))
        (agent,) = said((await second.process(json.dumps([_LOOK]))).output)
        stage.require(agent == _NOTHING, f"expected nothing of another agent, got {agent}")
    finally:
        await first.delete()
        await second.delete()

    look = "os.listdir('/brief')"
    before = await tried(stage, ["Path('/brief/kept').write_text('x')", look])
    (after,) = await tried(stage, [look])
    stage.require(before == ["= 1", "= ['kept']"], f"expected a file of this invocation, got {before}")
    stage.require(after == _NOTHING, f"expected nothing of an earlier invocation, got {after}")


ATTACK = Attack(guests={"guest": prober(SCRATCH, BRIEF), "second": prober(SCRATCH)}, run=_run)
