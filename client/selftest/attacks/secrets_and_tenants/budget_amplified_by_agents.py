"""A guest with little fuel that lets another one, whose template has much, spin for it.

Source: CWE-770. Expected: the child has what its caller has left, and ends in FUEL.
"""

from client.selftest.attack import Attack, Guest
from client.selftest.guests import forever
from client.selftest.stage import Stage

_SOURCE = """
from agentfactory_sdk import agents, FailedError, BudgetError

def process(text):
    ends = []
    for _ in range(8):
        try:
            agents.invoke(text, "")
        except BudgetError:
            ends.append("budget")
        except FailedError as error:
            ends.append("fuel" if "FUEL" in str(error) else str(error))
    return ends
"""
_GUESTS = {
    "worker": Guest(
        wat=forever(""), limits={"fuel": 50_000_000_000, "wall_ms": 60_000}, document={"callers": ["attacks/*"]}
    ),
    "caller": Guest(
        python=_SOURCE, grants={"agents": ["attacks/budget_amplified_by_agents-1"]}, limits={"fuel": 300_000_000}
    ),
}


async def _run(stage: Stage) -> None:
    seen = await stage.invoke("caller", stage.case.template("worker"))
    if seen.reason == "FUEL":
        return  # what the child burnt was taken from its caller at once
    wanted = '["fuel", "budget", "budget", "budget", "budget", "budget", "budget", "budget"]'
    stage.require(seen.output == wanted, f"expected the first child to use up everything, got {seen}")


ATTACK = Attack(guests=_GUESTS, run=_run)
