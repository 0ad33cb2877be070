"""Keys of the state that try to leave its namespace: dots, slashes, NUL, percent signs, wildcards, SQL.

Source: CWE-22, CWE-89. Expected: keys are opaque: nothing is found, or the key is refused.
"""

import json

from client.selftest.attack import Attack, Guest
from client.selftest.guests import KV
from client.selftest.stage import Stage

_SOURCE = """
from agentfactory_sdk import kv, InvalidError

KEYS = ["../canaries/canary", "../../acme/attacks/keeper/canaries/canary", "/canary", "canary", "canaries/canary",
        "%", "_", "*", "canar_", "' OR '1'='1", "canary' --", "\\x00canary", "..\\\\canary", "%2e%2e/canary",
        "acme\\x1fattacks/keeper\\x1f\\x1fcanaries\\x1fcanary", "\\uff0e\\uff0e/canary"]

def process(text):
    found = []
    for key in KEYS:
        try:
            found.append(repr(kv.get(key)))
        except InvalidError:
            found.append("invalid")
    return {"values": sorted(set(found)), "keys": list(kv.keys("")) + list(kv.keys("%")) + list(kv.keys("../"))}
"""


async def _run(stage: Stage) -> None:
    seen = await stage.invoke()
    stage.require(seen.output is not None, f"expected an answer, got {seen.reason}: {seen.message}")
    found = json.loads(seen.output or "{}")
    stage.require(set(found["values"]) <= {"None", "invalid"}, f"expected nothing, got {found['values']}")
    stage.require(found["keys"] == [], f"expected no key of others, got {found['keys']}")


ATTACK = Attack(guests={"guest": Guest(python=_SOURCE, grants=KV, limits={"host_calls": 100})}, run=_run)
