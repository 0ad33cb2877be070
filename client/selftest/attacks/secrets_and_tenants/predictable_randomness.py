"""Two invocations that compare their random numbers: an interpreter is snapshotted with its seed.

Source: CWE-335. Expected: different numbers each time, of every generator.
"""

from client.selftest.attack import Attack, Guest
from client.selftest.stage import Stage

_SOURCE = """
import os, random, secrets, uuid

def process(text):
    return [random.random(), secrets.token_hex(8), os.urandom(8).hex(), str(uuid.uuid4()), hash("text")]
"""


async def _run(stage: Stage) -> None:
    first, second = await stage.invoke(), await stage.invoke()
    stage.require(first.output is not None and second.output is not None, f"expected answers, got {first}, {second}")
    one, two = (set((seen.output or "").strip("[]").split(", ")[:4]) for seen in (first, second))
    stage.require(not one & two, f"expected different numbers, got {one & two} twice")


ATTACK = Attack(guests={"guest": Guest(python=_SOURCE)}, run=_run)
