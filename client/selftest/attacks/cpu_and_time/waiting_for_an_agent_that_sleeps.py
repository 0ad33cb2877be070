"""A guest that waits for another agent, which sleeps for longer than both may run.

Source: CWE-400. Expected: the callee has the caller's deadline; both end, and nothing is left in flight.
"""

from client.selftest.attack import Attack, Guest
from client.selftest.guests import SLEEP_FOR_EVER
from client.selftest.stage import Stage

_SOURCE = """
from agentfactory_sdk import agents, HostError

def process(text):
    try:
        return agents.invoke(text, "")
    except HostError as error:
        return error.kind
"""
_GUESTS = {
    "sleeper": Guest(wat=SLEEP_FOR_EVER, limits={"wall_ms": 60_000}, document={"callers": ["attacks/*"]}),
    "caller": Guest(
        python=_SOURCE, grants={"agents": ["attacks/waiting_for_an_agent_that_sleeps-1"]}, limits={"wall_ms": 1_000}
    ),
}


async def _run(stage: Stage) -> None:
    seen = await stage.invoke("caller", stage.case.template("sleeper"))
    ended = seen.reason == "DEADLINE" or (seen.output or "").strip('"') in {"failed", "budget"}
    stage.require(ended, f"expected DEADLINE of the callee or of both, got {seen}")


ATTACK = Attack(guests=_GUESTS, run=_run)
