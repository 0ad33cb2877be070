"""How a server's access is put together and kept up to date: authority, gate, credentials, people with tokens.

entrance = Entrance(settings, rules=RULES, keeper=GroundKeeper(…), state_directory=…, …)
guard = ServerGuard(authorise=entrance.authority.authorise, gate=entrance.gate, people=entrance.people, …)
build_server(credentials=entrance.credentials, people=entrance.people_port, …)
entrance.register(server)
tasks.start(entrance.keep(guard), name="access")
"""

import asyncio
import time
from collections.abc import Callable
from enum import StrEnum, unique
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
from agentfactory.admin.v1 import access_pb2_grpc

from service.access.authority import Authority, GroundKeeper
from service.access.backoff import FailureBackoff
from service.access.gate import Gate
from service.access.grpc_access import AccessService, Record
from service.access.issuer_keys import KeyKeeper, KeyTimes
from service.access.oidc_fetch import OidcFetch
from service.access.protection import AddressBlockedError
from service.access.rates import RateLimits
from service.access.role_file import InvalidRolesError, read_roles
from service.access.roles import RoleBook, Rules
from service.access.settings import AccessSettings
from service.access.state_file import AccessStateFile
from service.access.token_door import TokenDoor
from service.interceptors import LiveStream, ServerGuard, StreamTooSlowError
from service.logs import get_logger
from service.peer import UnauthenticatedError, address_of
from service.telemetry import CERTIFICATE_EXPIRES, Field, Telemetry
from service.tls import ReloadingCredentials, certificate_of
from templates.reasons import AgentFactoryError

STATE_FILE: Final = "access.json"
SWEEP_S: Final = 0.25
"""How soon a revoked identity, a blocked address and a stalled stream are ended."""

log = get_logger("access")


@unique
class Event(StrEnum):
    """What this module logs."""

    CERTIFICATE_RELOADED = "certificate_reloaded"
    ROLES_RELOADED = "roles_reloaded"
    RELOAD_REFUSED = "reload_refused"
    STREAMS_ENDED = "streams_ended"


class Entrance:
    """See the module. Its methods are called from the event loop's thread."""

    def __init__(
        self,
        settings: AccessSettings,
        *,
        rules: Rules,
        keeper: GroundKeeper[Any],
        state_directory: Path,
        telemetry: Telemetry,
        endless: frozenset[str] = frozenset(),
        clock: Callable[[], float] = time.time,  # noqa: TID251 -- the default of an edge
    ) -> None:
        """``endless`` are streaming methods that may take as long as they like.

        Raises:
            TlsFilesError, ExposedFileError, InvalidRolesError, AccessStateError: the process must not serve.
        """
        self._settings = settings
        self._keeper = keeper
        self._telemetry = telemetry
        self._endless = endless
        self._clock = clock
        self._roles_seen: bytes | None = None
        self.complaint = ""
        """Why files were not taken when they were last looked at; empty: they were."""
        keeper.book = self._read_roles()
        self.authority = Authority(rules, keeper)
        rates = settings.rates
        limited = any(each.per_minute for each in (rates.together, rates.principal, rates.address))
        self.gate = Gate(
            rules,
            AccessStateFile(state_directory / STATE_FILE),
            rates=RateLimits(rates, clock) if limited else None,
            clock=clock,
        )
        self.backoff = FailureBackoff()
        self._servers = [ReloadingCredentials(settings.tls_files)]
        self.credentials = self._servers[0].credentials
        self.record: Record | None = None
        """Where AccessService keeps what was decided; set before `register`."""
        self.keys: KeyKeeper | None = None
        self.people: TokenDoor | None = None
        self.people_port: tuple[int, grpc.ServerCredentials] | None = None
        self._open_to_people()

    def _open_to_people(self) -> None:
        settings = self._settings
        if settings.oidc_issuer is None or settings.token_rules is None or settings.people_port is None:
            return
        self.keys = KeyKeeper(
            OidcFetch(settings.oidc_issuer, authorities=settings.oidc_authorities_file),
            times=KeyTimes(),
            monotonic=time.monotonic,
        )
        self.people = TokenDoor(
            settings.token_rules,
            self.keys,
            backoff=self.backoff,
            clock=self._clock,
            check_address=self.gate.check_address,
        )
        self._servers.append(ReloadingCredentials(settings.tls_files, require_client_auth=False))
        self.people_port = (settings.people_port, self._servers[1].credentials)

    def register(self, server: grpc.aio.Server) -> None:
        """Add AccessService."""
        access_pb2_grpc.add_AccessServiceServicer_to_server(
            AccessService(
                authority=self.authority,
                gate=self.gate,
                backoff=self.backoff,
                clock=self._clock,
                record=self.record,
            ),
            server,
        )

    async def keep(self, guard: ServerGuard) -> None:
        """Follow files, revocations and streams; never ends by itself."""
        self.gate.changed = lambda: self.sweep(guard)
        async with asyncio.TaskGroup() as group:
            if self.keys is not None:
                group.create_task(self.keys.run())
            reloaded = time.monotonic()
            while True:
                self.sweep(guard)
                if time.monotonic() - reloaded >= self._settings.reload_s:
                    await asyncio.to_thread(self.reload)
                    reloaded = time.monotonic()
                await asyncio.sleep(min(SWEEP_S, self._settings.reload_s))

    def sweep(self, guard: ServerGuard) -> None:
        """Refuse who is revoked by now, and end streams that may go on no longer."""
        guard.revoke(self._keeper().revocations.identities)
        now, moment = self._clock(), time.perf_counter()
        if ended := guard.end_streams(lambda stream: self._verdict(stream, now=now, moment=moment)):
            log.warning(Event.STREAMS_ENDED, streams=ended)

    def _verdict(self, stream: LiveStream, *, now: float, moment: float) -> AgentFactoryError | None:
        settings = self._settings
        if stream.peer.valid_until <= now:
            return UnauthenticatedError("expected a certificate or token that is still valid, this one ran out")
        if self.gate.is_blocked(address_of(stream.context)):
            return AddressBlockedError("expected a call from an address that no operator has blocked")
        if stream.stalled_since and moment - stream.stalled_since > settings.stream_stall_s:
            return StreamTooSlowError(f"expected a receiver that takes something within {settings.stream_stall_s:g} s")
        is_endless = stream.endless or stream.method in self._endless
        if not is_endless and moment - stream.started > settings.stream_s_max:
            return StreamTooSlowError(f"expected a stream that ends within {settings.stream_s_max:g} s")
        return None

    def reload(self) -> None:
        """Take certificates, keys and roles as the files have them now; what cannot be used is logged, not taken."""
        try:
            changed = [each.refresh() for each in self._servers]
            if any(changed):
                certificate = certificate_of(self._settings.tls_files)
                self._telemetry.gauge(CERTIFICATE_EXPIRES, certificate.not_valid_after_utc.timestamp())
                log.info(Event.CERTIFICATE_RELOADED, expires=certificate.not_valid_after_utc.isoformat())
            before = self._roles_seen
            book = self._read_roles()
            if self._roles_seen != before:
                self._keeper.book = book
                log.warning(Event.ROLES_RELOADED, bindings=len(book.bindings) if book else 0)
        except AgentFactoryError as error:
            self._complain(error)
        else:
            self.complaint = ""

    def _complain(self, error: AgentFactoryError) -> None:
        if error.message != self.complaint:  # once, not every second
            self.complaint = error.message
            log.error(Event.RELOAD_REFUSED, **{Field.REASON: str(error.reason), Field.ERROR: error.message})

    def _read_roles(self) -> RoleBook | None:
        path = self._settings.roles_file
        if path is None:
            return None
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InvalidRolesError(f"expected a readable role file, got {error.strerror}: {path}") from error
        book = read_roles(data)
        self._roles_seen = data
        return book
