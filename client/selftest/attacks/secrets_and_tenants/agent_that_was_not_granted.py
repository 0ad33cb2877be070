"""A guest that invokes an agent it was not granted, and one that does not exist.

Source: CWE-862, CWE-204. Expected: denied, in the same words: a guest learns nothing of what exists.
"""

import json

from client.selftest.attack import Attack, Guest
from client.selftest.stage import Stage

_SOURCE = """
from agentfactory_sdk import agents, DeniedError

def attempt(name):
    try:
        return agents.invoke(name, "text")
    except DeniedError as error:
        return str(error).replace(name, "NAME")

def process(text):
    return [attempt("attacks/keeper"), attempt("attacks/no-such-agent"), attempt("guarded/nothing")]
"""


async def _run(stage: Stage) -> None:
    seen = await stage.invoke()
    stage.require(seen.output is not None, f"expected an answer, got {seen.reason}: {seen.message}")
    found = json.loads(seen.output or "[]")
    stage.require(len(set(found)) == 1 and "not granted" in found[0], f"expected one refusal for all, got {found}")


ATTACK = Attack(guests={"guest": Guest(python=_SOURCE, grants={"agents": ["attacks/ordinary"]})}, run=_run)
