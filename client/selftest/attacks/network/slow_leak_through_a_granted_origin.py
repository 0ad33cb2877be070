"""A guest that sends what it knows to the origin that it was granted, a few bits at a time, in paths and their times.

Source: CWE-514 (covert channels). Expected: it cannot be told from ordinary use, so it is bounded and seen: no more
requests than the node allows, every one of them in the receipt, and none to anybody else.
"""

from client.selftest.attack import Attack, Guest
from client.selftest.requests import FREE
from client.selftest.stage import Stage

_SOURCE = """
import time
from agentfactory_sdk import http, HostError

def process(text):
    bits = "".join(f"{byte:08b}" for byte in text.encode())
    sent = 0
    for bit in bits:
        time.sleep(0.01 * int(bit))
        try:
            http.get("service", f"/free/bit-{bit}")
        except HostError as error:
            return [sent, error.kind]
        sent += 1
    return [sent, ""]
"""
_REQUESTS_MAX = 20
_GUEST = Guest(python=_SOURCE, grants={"http": [dict(FREE)]}, limits={"host_calls": 1_000, "wall_ms": 20_000})


async def _run(stage: Stage) -> None:
    before = len(stage.service.received)
    seen = await stage.invoke(text="what the guest knows and nobody else should")
    arrived = [each.target for each in stage.service.received[before:] if each.target.startswith("/free/bit-")]
    stage.require(
        seen.output is not None and seen.output == f'[{_REQUESTS_MAX}, "budget"]',
        f"expected an end after {_REQUESTS_MAX} bits, got {seen}",
    )
    stage.require(len(arrived) == _REQUESTS_MAX, f"expected {_REQUESTS_MAX} requests, got {len(arrived)}")
    stage.require(
        seen.usage["host_calls"] > _REQUESTS_MAX, f"expected every request in the receipt, got {dict(seen.usage)}"
    )
    stage.require(
        seen.usage["sent_bytes"] >= sum(map(len, arrived)) > 0,
        f"expected what was sent in the receipt, got {dict(seen.usage)}",
    )


ATTACK = Attack(guests={"guest": _GUEST}, run=_run)
