"""An agent that invokes itself without end.

Source: CWE-674. Expected: a typed refusal (budget) at the depth limit; nobody waits for anybody.
"""

from client.selftest.attack import Answers, Guest, once

_SOURCE = """
from agentfactory_sdk import agents, BudgetError, FailedError

def process(text):
    depth = len(text)
    try:
        return agents.invoke("attacks/agent_that_invokes_itself-0", text + "x")
    except BudgetError:
        return f"refused below {depth}"
"""
ATTACK = once(
    Guest(
        python=_SOURCE,
        grants={"agents": ["attacks/agent_that_invokes_itself-0"]},
        document={"callers": ["attacks/*"]},
    ),
    expect=Answers("refused below 4"),
)
