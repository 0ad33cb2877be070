"""A tenant that asks a model what another tenant has asked: an answer that was kept tells that it was asked.

Source: CWE-524, CWE-208. Expected: answers are kept for one tenant; the other's question goes to the model again.
"""

from client.selftest.attack import Attack, Guest
from client.selftest.stage import ATTACKER, OTHER, Stage

_SOURCE = """
from agentfactory_sdk import llm

def process(text):
    answer = llm.complete("plain", text, model="plain", temperature=0)
    return [answer.text, answer.cached]
"""
_GRANT = {"binding": "plain", "models": ["plain"], "tokens_max": 1_000}
_GUEST = Guest(python=_SOURCE, grants={"llm": [_GRANT]})


async def _run(stage: Stage) -> None:
    question = f"what only one tenant asks, {len(stage.model.asked)}"  # never asked before, in whatever round
    for tenant, cached in ((OTHER, False), (OTHER, True), (ATTACKER, False)):
        before = len(stage.model.asked)
        seen = await stage.invoke(text=question, tenant=tenant)
        wanted = f'["an answer", {str(cached).lower()}]'
        stage.require(seen.output == wanted, f"expected {wanted} for {tenant}, got {seen}")
        asked = len(stage.model.asked) - before
        stage.require(asked == (0 if cached else 1), f"expected the model to be asked for {tenant}, got {asked} times")


ATTACK = Attack(guests={"guest": _GUEST}, run=_run)
