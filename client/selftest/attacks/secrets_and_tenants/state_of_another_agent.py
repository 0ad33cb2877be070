"""Two agents of one template: the second looks for what the first one stored.

Source: CWE-653. Expected: each agent has its own state.
"""

from client.selftest.attack import Attack, Guest
from client.selftest.guests import KV
from client.selftest.stage import Stage

_SOURCE = """
from agentfactory_sdk import kv

def process(text):
    if text:
        kv.put("secret", text)
    return [list(kv.keys("")), repr(kv.get("secret"))]
"""


async def _run(stage: Stage) -> None:
    factory, template = stage.factory(), stage.case.template("guest")
    first, second = await factory.create_agent(template), await factory.create_agent(template)
    try:
        await first.process("mine")
        seen = await second.process("")
        stage.require(seen.output == '[[], "None"]', f"expected empty state, got {seen.output}")
    finally:
        await first.delete()
        await second.delete()


ATTACK = Attack(guests={"guest": Guest(python=_SOURCE, grants=KV)}, run=_run)
