"""What an attack is given: the node as a caller sees it, tenants, and a memory of everything that came back."""

import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc.aio

from client.aio import AsyncAgentFactory
from client.selftest.attack import BreachError, Case, Expectation, Seen
from client.selftest.exports import Exports
from client.selftest.hostile_model import HostileModel
from client.selftest.hostile_service import HostileService
from client.selftest.node import Node
from client.selftest.world import World
from client.values import Limits
from service.client_interceptors import RetryPolicy, intercept_aio_channel
from service.status import RemoteError
from service.tls import TlsFiles, channel_credentials

ATTACKER: Final = "mallory"
"""The tenant of an attack that does not say another one. Its worker also serves one of the neighbours."""
OTHER: Final = "acme"
"""The tenant whose data, and whose invocations, no attack may reach."""
INVOKE_TIMEOUT_S: Final = 20.0
OK: Final = "OK"


@dataclass(frozen=True, slots=True)
class Canaries:
    """Texts that lie where no guest may look, by place."""

    by_place: Mapping[str, str]

    def found_in(self, data: bytes) -> list[str]:
        """Return the places whose canary is in ``data``: plain, hexadecimal, or base64 at any alignment."""
        return [place for place, text in self.by_place.items() if any(form in data for form in _forms(text.encode()))]


def _forms(secret: bytes) -> list[bytes]:
    whole = [base64.b64encode(bytes(shift) + secret)[4 * (shift > 0) : -4] for shift in range(3)]
    return [secret, secret.hex().encode(), secret[::-1], *whole]


@dataclass(slots=True)
class Connections:
    """Clients of the node, one for each tenant, kept between attacks."""

    node: Node
    _factories: dict[str, AsyncAgentFactory] = field(default_factory=dict)

    def factory(self, tenant: str) -> AsyncAgentFactory:
        """Return the client library as a service of ``tenant``."""
        if tenant not in self._factories:
            tls = self.node.world.service(tenant)
            self._factories[tenant] = AsyncAgentFactory.connect(
                self.node.address, certificate=tls.certificate, key=tls.key, authorities=tls.authorities
            )
        return self._factories[tenant]

    async def close(self) -> None:
        """Close every connection."""
        for factory in self._factories.values():
            await factory.close()


@dataclass(slots=True)
class Stage:
    """One attack in progress. What its methods return is noted: a canary in it is found whatever the case asks."""

    case: Case
    node: Node
    connections: Connections
    canaries: Canaries
    service: HostileService = field(default_factory=HostileService)
    model: HostileModel = field(default_factory=HostileModel)
    exports: Exports = field(default_factory=Exports)
    seen: list[bytes] = field(default_factory=list)

    # What a guest does

    async def invoke(
        self,
        guest: str = "guest",
        text: str = "",
        *,
        tenant: str = ATTACKER,
        limits: Limits | None = None,
        timeout_s: float = INVOKE_TIMEOUT_S,
    ) -> Seen:
        """Invoke one of the attack's guests; a refusal is an answer."""
        factory, template = self.connections.factory(tenant), self.case.template(guest)

        async def call() -> Any:
            return await factory.invoke_template(template, text, limits=limits, timeout_s=timeout_s)

        return await self.attempt(call)

    async def attempt(self, call: Callable[[], Awaitable[Any]]) -> Seen:
        """Do anything through the client library; note what came of it."""
        try:
            answer = await call()
        except RemoteError as error:
            self.note(f"{error.reason_text} {error.message} {error.metadata} {error.violations}")
            return Seen(output=None, reason=error.reason_text or str(error.reason), message=error.message)
        output = getattr(answer, "output", None)
        self.note(repr(answer))
        if output is None:
            return Seen(output=repr(answer), reason=OK)
        self.note(output)
        usage = {name: getattr(answer.receipt.usage, name) for name in answer.receipt.usage.__slots__}
        return Seen(output=output, reason=OK, usage=usage, invocation_id=answer.receipt.invocation_id)

    async def expect(
        self, expectation: Expectation, guest: str = "guest", text: str = "", *, limits: Limits | None = None
    ) -> Seen:
        """Invoke a guest and judge what came back."""
        seen = await self.invoke(guest, text, limits=limits)
        expectation.check(seen)
        return seen

    async def log_lines(self, guest: str = "guest") -> list[str]:
        """Return the lines that the guest's newest invocation logged, as its tenant is shown them."""
        factory = self.connections.factory(ATTACKER)
        (newest,) = await factory.list_invocations(template=self.case.template(guest), count=1)
        record = await factory.get_invocation(newest.invocation_id)
        lines = [line.message for line in record.logs]
        self.note("\n".join(lines))
        return lines

    # What a caller does

    @property
    def world(self) -> World:
        return self.node.world

    @property
    def scratch(self) -> Path:
        """A directory of this case."""
        directory = self.world.directory / "scratch" / self.case.name
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def factory(self, tenant: str = ATTACKER) -> AsyncAgentFactory:
        """Return the client library as a service of ``tenant``."""
        return self.connections.factory(tenant)

    def channel(
        self, tls: TlsFiles | None = None, *, options: tuple[tuple[str, Any], ...] = (), typed: bool = True
    ) -> grpc.aio.Channel:
        """Return a channel of this case alone; close it. ``typed``: errors are `RemoteError`."""
        credentials = channel_credentials(tls or self.world.service(ATTACKER))
        channel = grpc.aio.secure_channel(self.node.address, credentials, options=options)
        return intercept_aio_channel(channel, RetryPolicy()) if typed else channel

    # What must hold

    def note(self, data: str | bytes) -> None:
        """Remember what the attacker got to see."""
        self.seen.append(data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data)

    def require(self, holds: bool, text: str) -> None:  # noqa: FBT001
        """Raise `BreachError` with ``text`` unless it holds."""
        if not holds:
            raise BreachError(text)

    def leaks(self) -> list[str]:
        """Return the places whose canary the attacker saw."""
        return sorted({place for data in self.seen for place in self.canaries.found_in(data)})
