"""Carries out the host calls of the interface `http`: grant → amounts → secret → request → scrubbed answer.

What happens in which order is the promise: nothing is resolved before the grant was checked, no secret is read before
the charter was asked, and nothing that came back reaches the guest before it was scrubbed.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from data_plane.admission.circuit_breaker import CircuitBreakers, Refused
from data_plane.broker.amounts import Amount, Amounts
from data_plane.broker.answers import ErrorKind, HostRefusal, Members
from data_plane.broker.http_grant import (
    EgressAmounts,
    OutgoingRequest,
    answer_of,
    joined_headers,
    outgoing,
    read_http_request,
    require_granted,
)
from data_plane.broker.origin import Origin
from data_plane.broker.scrub import STEP_BYTES, Scrubber
from data_plane.broker.secret_binding import Secret, SecretKeeper, SecretUnusableError, require_bound
from data_plane.http_egress import EgressLimits, HttpEgress, Traffic
from service.logs import get_logger
from service.telemetry import HTTP_BYTES, HTTP_REQUESTS, Field, Telemetry
from templates.canonical import JsonValue
from templates.charter import SecretBinding
from templates.grants import Grants
from templates.names import TemplateName

SERVER_ERRORS_FROM: Final = 500

log = get_logger("http")


@dataclass(slots=True)
class _Judge:
    """How a request went: ``status`` is 0 where there was no whole response."""

    status: int = 0
    has_failed: bool = False


class HttpCalls:
    """Shared by all invocations; what one of them spends is in its own `Amounts`."""

    def __init__(
        self,
        egress: HttpEgress,
        *,
        secrets: SecretKeeper,
        allowed: EgressAmounts,
        limits: EgressLimits,
        per_tenant_max: int,
        breakers: CircuitBreakers[tuple[str, str]],
        telemetry: Telemetry,
        monotonic: Callable[[], float],
    ) -> None:
        """``per_tenant_max``: requests of one tenant at a time; more are refused, not queued.

        ``breakers`` are kept by tenant and origin: an origin that keeps failing is left alone for a while.
        """
        self._egress = egress
        self._secrets = secrets
        self._allowed = allowed
        self._limits = limits
        self._per_tenant_max = per_tenant_max
        self._breakers = breakers
        self._telemetry = telemetry
        self._monotonic = monotonic
        self._in_flight: Counter[str] = Counter()

    async def call(
        self,
        function: str,
        members: Members,
        *,
        tenant: str,
        template: TemplateName,
        grants: Grants,
        bindings: Mapping[str, SecretBinding],
        amounts: Amounts,
        deadline: float,
    ) -> JsonValue:
        """Return the answer to one call.

        Args:
            function: of the interface.
            members: its argument.
            tenant: whose invocation it is.
            template: whose grants these are.
            grants: as approved.
            bindings: of the charter in force now.
            amounts: of the invocation.
            deadline: of the invocation, on the event loop's clock.

        Raises:
            HostRefusal: whatever went wrong, told in words that are safe for the guest.
        """
        result = "refused"
        try:
            require_granted(grants)
            request = outgoing(grants, read_http_request(function, members))
            body_bytes_max = self._allowed.take(amounts)
            secret = await self._secret(request, bindings, template)
            with self._room(tenant), self._judged(tenant, request.grant.origin) as judge:
                answer, status = await self._fetch(request, secret, amounts, body_bytes_max, deadline)
                judge.status = status
            result = f"{status // 100}xx"
        except HostRefusal as refusal:
            result = str(refusal.kind)
            raise
        else:
            return answer
        finally:
            self._telemetry.count(HTTP_REQUESTS, result)

    @contextmanager
    def _room(self, tenant: str) -> Iterator[None]:
        if self._in_flight[tenant] >= self._per_tenant_max:
            raise HostRefusal(
                ErrorKind.QUOTA, f"expected at most {self._per_tenant_max} requests of a tenant at a time"
            )
        self._in_flight[tenant] += 1
        try:
            yield
        finally:
            self._in_flight[tenant] -= 1
            if not self._in_flight[tenant]:
                del self._in_flight[tenant]

    @contextmanager
    def _judged(self, tenant: str, origin: str) -> Iterator["_Judge"]:
        """Refuse while the origin keeps failing, and let its breaker learn how this request went.

        A guest's own fault (a limit, its deadline, a refused destination) says nothing about the origin.
        """
        breaker = self._breakers.of((tenant, origin))
        permit = breaker.admit(now=self._monotonic())
        if isinstance(permit, Refused):
            raise HostRefusal(ErrorKind.FAILED, f"{origin} keeps failing; try again in {permit.retry_s:.1f} s")
        judge = _Judge()
        try:
            yield judge
        except HostRefusal as refusal:
            judge.has_failed = refusal.kind is ErrorKind.FAILED
            raise
        finally:
            if judge.has_failed or judge.status >= SERVER_ERRORS_FROM:
                breaker.fail(permit, now=self._monotonic())
            elif judge.status:
                breaker.succeed(permit, now=self._monotonic())
            else:
                breaker.drop(permit)

    async def _secret(
        self, request: OutgoingRequest, bindings: Mapping[str, SecretBinding], template: TemplateName
    ) -> Secret | None:
        injection = request.grant.inject
        if injection is None:
            return None
        require_bound(bindings, injection, request, template)
        try:
            return await self._secrets.secret(injection.secret)
        except SecretUnusableError as error:
            log.warning("secret_unusable", **{Field.TEMPLATE: str(template), Field.ERROR: str(error)})
            raise HostRefusal(ErrorKind.FAILED, f"the node cannot use the secret {injection.secret}") from None

    async def _fetch(
        self, request: OutgoingRequest, secret: Secret | None, amounts: Amounts, body_bytes_max: int, deadline: float
    ) -> tuple[JsonValue, int]:
        grant = request.grant
        headers = list(request.headers)
        if grant.inject is not None and secret is not None:
            headers.append((grant.inject.header, secret.value))
        scrubber = Scrubber(() if secret is None else secret.parts())
        traffic = Traffic()
        try:
            async with self._egress.request(
                Origin.parse(grant.origin),
                request.method,
                request.target,
                headers,
                request.body,
                limits=self._limits.with_body(body_bytes_max, sent_bytes_max=amounts.left(Amount.SENT_BYTES)),
                deadline=deadline,
                traffic=traffic,
            ) as response:
                body = await response.read()
        except HostRefusal as refusal:
            raise HostRefusal(refusal.kind, scrubber.scrub_text(refusal.message)) from None
        finally:
            amounts.note(Amount.SENT_BYTES, traffic.sent)
            amounts.note(Amount.RECEIVED_BYTES, traffic.received)
            self._telemetry.count(HTTP_BYTES, "sent", amount=traffic.sent)
            self._telemetry.count(HTTP_BYTES, "received", amount=traffic.received)
        if secret is None:
            return answer_of(response.status, joined_headers(response.headers), body), response.status
        scrubbed = _scrubbed_headers(scrubber, response.headers)
        return answer_of(response.status, scrubbed, await scrubbed_in_steps(scrubber, body)), response.status


def _scrubbed_headers(scrubber: Scrubber, headers: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Scrub names as well: a server may have put anything into them."""
    return joined_headers([(scrubber.scrub_text(name), scrubber.scrub_text(value)) for name, value in headers])


async def scrubbed_in_steps(scrubber: Scrubber, body: bytes) -> bytes:
    """Scrub a body, and let others have the loop between the steps of a long one."""
    if len(body) <= STEP_BYTES:
        return scrubber.scrub(body)
    steps = scrubber.steps(body)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return bytes(end.value)
        await asyncio.sleep(0)
