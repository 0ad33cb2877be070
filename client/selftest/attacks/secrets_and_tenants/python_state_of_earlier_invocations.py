"""An agent that leaves something everywhere it can reach, and looks for it the next time.

Source: CWE-488. Expected: nothing survives: every invocation has a fresh interpreter.
"""

from client.selftest.attack import Answers, Attack, Guest
from client.selftest.stage import Stage

_SOURCE = """
import builtins, os, sys, json, agentfactory_sdk

LEFT = []

def process(text):
    found = [bool(LEFT), hasattr(builtins, "left"), "left" in sys.modules, hasattr(json, "left"),
             hasattr(agentfactory_sdk, "left"), "LEFT" in os.environ]
    LEFT.append(1)
    builtins.left = json.left = agentfactory_sdk.left = 1
    sys.modules["left"] = json
    os.environ["LEFT"] = "1"
    return found
"""


async def _run(stage: Stage) -> None:
    for _ in range(3):
        await stage.expect(Answers("[false, false, false, false, false, false]"))


ATTACK = Attack(guests={"guest": Guest(python=_SOURCE)}, run=_run)
