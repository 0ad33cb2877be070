"""A guest that makes requests without end.

Source: CWE-770. Expected: a typed refusal at the node's limit of requests of one invocation.
"""

from client.selftest.attack import Attack, Guest
from client.selftest.requests import FREE
from client.selftest.stage import Stage

_SOURCE = """
from agentfactory_sdk import http, HostError

def process(text):
    for number in range(40):
        try:
            http.get("service", "/free/plain")
        except HostError as error:
            return {"made": number, "kind": error.kind}
    return {"made": 40, "kind": ""}
"""
_GUEST = Guest(python=_SOURCE, grants={"http": [dict(FREE)]}, limits={"host_calls": 100, "wall_ms": 20_000})


async def _run(stage: Stage) -> None:
    before = len(stage.service.received)
    seen = await stage.invoke()
    stage.require(seen.output is not None and '"made": 20' in seen.output, f"expected 20 requests, got {seen}")
    made = len(stage.service.received) - before
    stage.require(made == 20, f"expected 20 requests at the service, got {made}")


ATTACK = Attack(guests={"guest": _GUEST}, run=_run)
