"""Proxies in the environment of the node, which name the hostile service: whoever follows them sends it everything.

Source: CVE-2016-5385 and its kin. Expected: requests go to the checked address itself; the guest sees no such names.
"""

from client.selftest.attack import Attack, Guest
from client.selftest.requests import FREE, ask, requester
from client.selftest.stage import Stage

_SOURCE = """
import os

def process(text):
    return sorted(name for name in os.environ if "proxy" in name.lower())
"""
_GUESTS = {"guest": requester(FREE), "environment": Guest(python=_SOURCE)}


async def _run(stage: Stage) -> None:
    names = stage.node.environment
    stage.require("http_proxy" in names, f"expected a node with proxies in its environment, got {sorted(names)}")
    before = len(stage.service.received)
    found = await ask(stage, "/free/plain")
    stage.require(found["kind"] == "", f"expected an answer, got {found}")
    came = stage.service.received[before:]
    stage.require(
        all(each.method != "CONNECT" and each.target.startswith("/") for each in came),
        f"expected requests to the service itself, got {came}",
    )
    seen = await stage.invoke("environment")
    stage.require(seen.output == "[]", f"expected no proxy in the guest's environment, got {seen}")


ATTACK = Attack(guests=_GUESTS, run=_run)
