"""A guest that was granted an agent whose own list of callers does not name it.

Source: CWE-863. Expected: denied: both sides must agree.
"""

from client.selftest.attack import Attack, Guest
from client.selftest.guests import ECHO
from client.selftest.stage import Stage

_SOURCE = """
from agentfactory_sdk import agents, DeniedError

def process(text):
    try:
        return agents.invoke(text, "text")
    except DeniedError:
        return "denied"
"""
_GUESTS = {
    "callee": Guest(wat=ECHO, document={"callers": ["documentation/*"]}),
    "caller": Guest(python=_SOURCE, grants={"agents": ["attacks/callee_that_refuses_the_caller-0"]}),
}


async def _run(stage: Stage) -> None:
    seen = await stage.invoke("caller", stage.case.template("callee"))
    stage.require(seen.output == "denied", f"expected a denial, got {seen.output or seen.message}")


ATTACK = Attack(guests=_GUESTS, run=_run)
