"""What it costs to ask whether a caller may: the authority and the gate of both planes, as a share of an RPC.

The RPC is a bare echo over the same TLS, the cheapest that there is, so that no share is too small for its method. A
control plane's gate counts rates of principal, address and everybody; a node's has none to count.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import bench_interceptor
from control_plane.authorisation import RULES as CONTROL_PLANE
from data_plane.authorisation import RULES as NODE
from service.access.authority import Authority, Ground
from service.access.gate import Gate
from service.access.rates import Rate, RateLimits, Rates
from service.access.roles import Rules
from service.access.state_file import AccessStateFile
from service.identity import Identity
from service.peer import Peer

BAR_PERCENT = 5.0
ROUNDS = 40
CALLS = 500
UNREACHED = Rate(per_minute=60_000_000, burst=1_000_000)


class _Call:
    """What the gate asks of a call."""

    def peer(self) -> str:
        return "ipv4:192.0.2.7:40000"

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}


def _cost_us(rules: Rules, method: str, peer: Peer, rates: Rates | None, directory: Path) -> float:
    """Return the median of one decision, in microseconds."""
    ground = Ground()
    authority = Authority(rules, lambda: ground)
    limits = None if rates is None else RateLimits(rates, time.time)
    gate = Gate(rules, AccessStateFile(directory / "access.json"), rates=limits, clock=time.time)
    context = _Call()
    rounds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(CALLS):
            gate.admit(peer, method, context)
            authority.authorise(peer, method)
        rounds.append((time.perf_counter() - started) / CALLS * 1e6)
    return statistics.median(rounds)


def rows() -> list[dict[str, Any]]:
    """Return one row per plane."""
    person = Peer(Identity.person("bench", "alice"), 2e9)
    service = Peer(Identity.service("bench", "acme", "billing"), 2e9)
    rates = Rates(together=UNREACHED, principal=UNREACHED, address=UNREACHED)
    rpc_us = bench_interceptor.measure()["bare"]
    found = []
    with tempfile.TemporaryDirectory() as name:
        for plane, cost_us in (
            (
                "control plane",
                _cost_us(CONTROL_PLANE, "/agentfactory.admin.v1.FleetService/ListNodes", person, rates, Path(name)),
            ),
            ("node", _cost_us(NODE, "/agentfactory.agent.v1.AgentService/InvokeAgent", service, None, Path(name))),
        ):
            share = cost_us / rpc_us * 100
            found.append(
                {
                    "name": f"authorisation and rates on a {plane}, of a bare echo",
                    "value": share,
                    "unit": "%",
                    "bar": BAR_PERCENT,
                    "ok": share <= BAR_PERCENT,
                }
            )
    return found


if __name__ == "__main__":
    for row in rows():
        print(f"{row['name']}: {row['value']:.2f} {row['unit']} (bar {row['bar']:g})")
