"""A guest that writes state until it is refused.

Source: CWE-770. Expected: a typed refusal of the grant (quota) after at most as many bytes as were granted.
"""

import json

from client.selftest.attack import Attack, Guest
from client.selftest.stage import Stage

_SOURCE = """
from agentfactory_sdk import kv, QuotaError

def process(text):
    written = 0
    for number in range(100):
        try:
            kv.put(f"key-{number:04}", "x" * 1000)
        except QuotaError:
            return {"refused": "quota", "written": written}
        written += 1000
    return {"refused": "", "written": written}
"""
_GUEST = Guest(python=_SOURCE, grants={"kv": {"namespace": "full", "bytes_max": 20_000}}, limits={"host_calls": 200})


async def _run(stage: Stage) -> None:
    seen = await stage.invoke()
    stage.require(seen.output is not None, f"expected an answer, got {seen.reason}: {seen.message}")
    found = json.loads(seen.output or "{}")
    stage.require(found["refused"] == "quota", f"expected the quota to refuse, got {found}")
    stage.require(found["written"] <= 20_000, f"expected at most 20000 bytes of state, got {found}")


ATTACK = Attack(guests={"guest": _GUEST}, run=_run)
