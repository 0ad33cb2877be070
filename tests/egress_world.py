"""The broker's way outside, put together as a node does, with names and secrets that a test chooses."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path

from data_plane.admission.circuit_breaker import BreakerSettings, CircuitBreakers
from data_plane.broker.address_policy import Destinations
from data_plane.broker.http_grant import EgressAmounts
from data_plane.broker.origin import IpAddress
from data_plane.broker.secret_binding import Secret, SecretUnusableError, require_name
from data_plane.egress_connect import Connector, client_tls
from data_plane.http_calls import HttpCalls
from data_plane.http_egress import EgressLimits, HttpEgress
from service.telemetry import Telemetry

ALLOWED = EgressAmounts(requests_max=5, response_bytes_max=2_000_000)


class FixedResolver:
    """Answers in turn; the last answer stays. Without answers there is no address."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = [tuple(ip_address(text) for text in answer) for answer in answers]
        self.asked: list[str] = []

    async def resolve(self, name: str) -> Sequence[IpAddress]:
        await asyncio.sleep(0)
        self.asked.append(name)
        if not self._answers:
            raise OSError
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


class MemorySecrets:
    """A `SecretKeeper` of given contents; passes the same contract tests as the directory."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self.contents = dict(contents)
        self.asked: list[str] = []

    async def secret(self, name: str) -> Secret:
        self.asked.append(require_name(name))
        if name not in self.contents:
            raise SecretUnusableError(f"expected the secret {name}, got none")
        return Secret.parse(name, self.contents[name])


def egress_of(
    destinations: Mapping[str, Sequence[str]], *, resolver: FixedResolver | None = None, ca_file: Path | None = None
) -> HttpEgress:
    return HttpEgress(
        Connector(
            destinations=Destinations.parse(destinations),
            resolver=resolver or FixedResolver(["127.0.0.1"]),
            tls=client_tls(ca_file),
        )
    )


def http_calls(
    egress: HttpEgress | None = None,
    *,
    secrets: MemorySecrets | None = None,
    allowed: EgressAmounts = ALLOWED,
    per_tenant_max: int = 10,
    telemetry: Telemetry | None = None,
    breakers: CircuitBreakers[tuple[str, str]] | None = None,
) -> HttpCalls:
    """By default nothing can be reached."""
    return HttpCalls(
        egress or egress_of({}, resolver=FixedResolver()),
        secrets=secrets or MemorySecrets({}),
        allowed=allowed,
        limits=EgressLimits(),
        per_tenant_max=per_tenant_max,
        breakers=breakers or CircuitBreakers(BreakerSettings(calls_min=1_000_000)),
        telemetry=telemetry or Telemetry(),
        monotonic=time.monotonic,
    )
