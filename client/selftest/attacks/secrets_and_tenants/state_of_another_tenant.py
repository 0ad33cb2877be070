"""The same template, run for another tenant after the first one stored a secret.

Source: CWE-653. Expected: each tenant has its own state.
"""

from client.selftest.attack import Attack, Guest
from client.selftest.guests import KV
from client.selftest.stage import OTHER, Stage

_SOURCE = """
from agentfactory_sdk import kv

def process(text):
    if text:
        kv.put("secret", text)
    return [list(kv.keys("")), repr(kv.get("secret"))]
"""


async def _run(stage: Stage) -> None:
    kept = await stage.invoke(text="theirs", tenant=OTHER)
    stage.require(kept.output is not None and "theirs" in kept.output, f"expected stored state, got {kept}")
    seen = await stage.invoke()
    stage.require(seen.output == '[[], "None"]', f"expected empty state, got {seen.output or seen.message}")


ATTACK = Attack(guests={"guest": Guest(python=_SOURCE, grants=KV)}, run=_run)
