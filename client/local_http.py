"""The grant `http` in one `agentctl template run`: by the broker's own rules, within what the command line names.

It and `client.local_llm` are the modules of the client that import the data plane (ADR 12): an author tries requests
against the very code that will refuse them on a node. In place of the charter stands the command line: a secret goes
where the template's own grant injects it, if it was named.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from client.local_grants import LocalGrantError
from data_plane.admission.circuit_breaker import BreakerSettings, CircuitBreakers
from data_plane.broker.address_policy import Destinations
from data_plane.broker.amounts import Amounts
from data_plane.broker.answers import HostRefusal, Members, answer_error, answer_ok
from data_plane.broker.http_grant import EgressAmounts
from data_plane.broker.secret_binding import Secret, SecretUnusableError
from data_plane.egress_connect import Connector, SystemResolver, client_tls
from data_plane.http_calls import HttpCalls
from data_plane.http_egress import EgressLimits, HttpEgress
from sandbox.limits import SandboxLimits
from service.secret_files import ExposedFileError, read_secret
from service.telemetry import Telemetry
from templates.charter import SecretBinding
from templates.grants import Grants, HttpGrant
from templates.names import TemplateName, TemplatePattern
from templates.resolved import ResolvedTemplate

ALLOWED: Final = EgressAmounts(requests_max=100, response_bytes_max=2 * 1024 * 1024)
"""A node's defaults."""


class InvalidOutsideError(LocalGrantError):
    """The command line names a binding that the template has not, or a network or secret that is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What the command line names.

    Args:
        bindings: of the template's `http` grants, None for all of them.
        private: origins inside of private networks, with those networks.
        secrets: files by the secret's name.
        authorities: PEM file of the authorities that sign the servers, None for the system's.
    """

    bindings: frozenset[str] | None = None
    private: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    secrets: Mapping[str, Path] = field(default_factory=dict)
    authorities: Path | None = None


def amounts_of(resolved: ResolvedTemplate) -> Amounts:
    """Return what one run may use, all its grants together."""
    return Amounts(SandboxLimits(**resolved.limits.amounts()))


class LocalHttp:
    """Carries out the calls of one run; close it afterwards."""

    def __init__(self, resolved: ResolvedTemplate, outside: Outside, amounts: Amounts) -> None:
        """Raise `InvalidOutsideError` for what cannot be meant, `TlsFilesError` for authorities that are none."""
        chosen = tuple(
            grant for grant in resolved.grants.http if outside.bindings is None or grant.binding in outside.bindings
        )
        if strange := sorted((outside.bindings or frozenset()) - {grant.binding for grant in chosen}):
            raise InvalidOutsideError(f"expected a binding of {resolved.ref}, got {strange[0]}")
        injected = {grant.inject.secret for grant in resolved.grants.http if grant.inject is not None}
        if strange := sorted(outside.secrets.keys() - injected):
            raise InvalidOutsideError(f"expected a secret that {resolved.ref} injects, got {strange[0]}")
        try:
            destinations = Destinations.parse(outside.private)
            tls = client_tls(outside.authorities)
        except ValueError as error:
            raise InvalidOutsideError(f"expected ORIGIN=NETWORK, got: {error}") from None
        self._template = resolved.ref.template_name
        self._grants = Grants(http=chosen)
        self._bindings = dict(_bindings(chosen, self._template, outside.secrets))
        self._amounts = amounts
        self._deadline_s = resolved.limits.wall_ms / 1000
        self._resolver = SystemResolver(threads=1)
        self._calls = HttpCalls(
            HttpEgress(Connector(destinations=destinations, resolver=self._resolver, tls=tls)),
            secrets=NamedFiles(outside.secrets),
            allowed=ALLOWED,
            limits=EgressLimits(),
            per_tenant_max=1,
            breakers=CircuitBreakers(BreakerSettings()),
            telemetry=Telemetry(),
            monotonic=time.monotonic,
        )

    async def call(self, function: str, argument: bytes) -> bytes:
        """Answer one host call as the broker does."""
        try:
            answer = await self._calls.call(
                function,
                Members.parse(argument),
                tenant="local",
                template=self._template,
                grants=self._grants,
                bindings=self._bindings,
                amounts=self._amounts,
                deadline=asyncio.get_running_loop().time() + self._deadline_s,
            )
        except HostRefusal as refusal:
            return answer_error(refusal)
        return answer_ok(answer)

    def close(self) -> None:
        self._resolver.close()


class NamedFiles:
    """`data_plane.broker.secret_binding.SecretKeeper` of the files on the command line."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files

    async def secret(self, name: str) -> Secret:
        try:
            return Secret.parse(name, await asyncio.to_thread(read_secret, self._files[name]))
        except (ExposedFileError, OSError) as error:
            raise SecretUnusableError(str(error)) from None


def _bindings(
    grants: tuple[HttpGrant, ...], template: TemplateName, secrets: Mapping[str, Path]
) -> Mapping[str, SecretBinding]:
    """Bind each secret that was named to where the template's grants send it; the first says to which origin."""
    found: dict[str, SecretBinding] = {}
    for grant in grants:
        inject = grant.inject
        if inject is None or inject.secret not in secrets:
            continue
        binding = SecretBinding(
            origin=grant.origin,
            header=inject.header,
            path_prefixes=grant.path_prefixes,
            methods=grant.methods,
            templates=(TemplatePattern(template.domain, template.name),),
        )
        known = found.setdefault(inject.secret, binding)
        if (known.origin, known.header.lower()) == (binding.origin, binding.header.lower()):
            found[inject.secret] = replace(
                known,
                path_prefixes=(*known.path_prefixes, *binding.path_prefixes),
                methods=(*known.methods, *binding.methods),
            )
    return found
