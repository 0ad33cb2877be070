"""The entrance of a server over real connections: tokens, reloaded certificates, revocation, rates, blocks, streams."""

import asyncio
import json
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog
from agentfactory.admin.v1 import access_pb2 as pb
from agentfactory.admin.v1 import access_pb2_grpc

from client.tokens import token_credentials
from service.access.authority import GroundKeeper
from service.access.entrance import Entrance
from service.access.issuer_keys import KeyTimes
from service.access.roles import Effect, Role, Rules, rule
from service.access.settings import AccessSettings
from service.client_interceptors import RetryPolicy, intercept_aio_channel, intercept_channel
from service.guard_ports import NoObserver
from service.identity import Identity
from service.interceptors import ServerGuard
from service.logs import LogFormat, LogLevel, configure_logs
from service.peer import Peer
from service.server import ServiceServer, build_server
from service.status import RemoteError, from_rpc_error
from service.tls import channel_credentials
from templates.reasons import Reason
from templates.revocations import NO_REVOCATIONS, Revocations
from tests.integration.echo_world import ALICE, NODE, SERVICE, TRUST_DOMAIN, Echo, EchoStub, World, say
from tests.issuer import Issuer

ACCESS = "/agentfactory.admin.v1.AccessService/"
PERSON = Identity.person(TRUST_DOMAIN, "alice")
ADMIN = Identity.person(TRUST_DOMAIN, "olga")


class Settings(AccessSettings, env_prefix="AGENTFACTORY_CP_"):
    """Settings of some server."""


EVERYBODY: Rules = {
    **{f"/{SERVICE}/{method}": rule(Effect.WRITE, *Role) for method in ("Unary", "Many", "Join", "Talk")},
    **{ACCESS + method: rule(Effect.READ, *Role) for method in ("GetCaller", "GetAccess")},
    **{
        ACCESS + method: rule(Effect.PROTECT, Role.ADMIN)
        for method in ("SetSecureMode", "BlockAddress", "UnblockAddress")
    },
}


@dataclass
class Served:
    world: World
    entrance: Entrance
    guard: ServerGuard
    server: ServiceServer

    @asynccontextmanager
    async def certificate(self, identity: Identity = PERSON, *, of: str = "127.0.0.1") -> AsyncIterator[Any]:
        credentials = channel_credentials(self.world.files(identity))
        async with grpc.aio.secure_channel(f"{of}:{self.server.port}", credentials) as channel:
            yield channel

    @asynccontextmanager
    async def token(self, token: str | None, *, port: int | None = None) -> AsyncIterator[Any]:
        roots = self.world.directory / "roots.pem"
        roots.write_bytes(self.world.authority.certificate)
        credentials = (
            grpc.ssl_channel_credentials(root_certificates=roots.read_bytes())
            if token is None
            else token_credentials(token, roots)
        )
        address = f"localhost:{port or self.server.people_port}"
        async with grpc.aio.secure_channel(address, credentials) as channel:
            yield channel


class Heard(NoObserver):
    """Hears whose calls there are."""

    def __init__(self) -> None:
        self.peers: list[str] = []

    def identified(self, peer: Peer) -> None:
        self.peers.append(peer.uri)


@dataclass
class Doors:
    """Makes servers; what is in force is ``revoked``."""

    world: World
    issuer: Issuer
    revoked: Revocations = NO_REVOCATIONS
    roles: Path | None = None
    made: int = field(default=0)
    heard: "Heard | None" = None

    @asynccontextmanager
    async def serving(self, *, people: bool = False, **changes: Any) -> AsyncIterator[Served]:
        files = self.world.files(NODE)
        state = self.world.directory / "state"
        state.mkdir(mode=0o700, exist_ok=True)
        values: dict[str, Any] = {
            "trust_domain": TRUST_DOMAIN,
            "tls_certificate_file": files.certificate,
            "tls_key_file": files.key,
            "tls_authorities_file": files.authorities,
            "roles_file": self.roles,
            "reload_s": 0.05,
            **({"people_port": 0, "oidc_issuer": self.issuer.url} if people else {}),
            **changes,
        }
        keeper: GroundKeeper[Any] = GroundKeeper(lambda: self.revoked, lambda seen: (self._charter(), seen))
        entrance = Entrance(
            Settings(**values), rules=EVERYBODY, keeper=keeper, state_directory=state, telemetry=self.world.telemetry
        )
        if entrance.keys is not None:
            entrance.keys._times = KeyTimes(fresh_s=300, stale_s=600, pause_s=0.2)
        guard = ServerGuard(
            trust_domain=TRUST_DOMAIN,
            authorise=entrance.authority.authorise,
            telemetry=self.world.telemetry,
            gate=entrance.gate,
            people=entrance.people,
            observer=self.heard,
        )

        def register(server: grpc.aio.Server) -> None:
            self.world.echo.register(server)
            entrance.register(server)

        server = build_server(
            host="127.0.0.1",
            port=0,
            credentials=entrance.credentials,
            guard=guard,
            register=register,
            service_names=[SERVICE],
            people=entrance.people_port,
        )
        async with server:
            keeping = asyncio.create_task(entrance.keep(guard))
            try:
                yield Served(self.world, entrance, guard, server)
            finally:
                keeping.cancel()
                await asyncio.gather(keeping, return_exceptions=True)

    @staticmethod
    def _charter() -> Any:
        from tests.trust_world import charter, persons

        return charter(persons={**persons(), "olga": {}})


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[Doors]:
    world = World(tmp_path, Echo())
    configure_logs(level=LogLevel.INFO, form=LogFormat.JSON, stream=world.log)
    issuer = Issuer()
    issuer.rotate("one")
    with issuer.serving():
        yield Doors(world, issuer)
    structlog.reset_defaults()


async def refusal(call: Any) -> RemoteError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call, 10)
    return from_rpc_error(caught.value)


async def until(condition: Any, timeout_s: float = 10) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.01)


def caller(channel: Any) -> Any:
    return access_pb2_grpc.AccessServiceStub(channel).GetCaller(pb.GetCallerRequest())


class TestTokens:
    async def test_a_token_is_a_person_where_tokens_are_taken(self, doors: Doors) -> None:
        async with doors.serving(people=True) as served, served.token(doors.issuer.token(groups=["g"])) as channel:
            assert (await EchoStub(channel).unary(say("x"))).value == "x"
            found = await caller(channel)
            assert (found.identity, list(found.groups)) == (PERSON.uri, ["g"])
            assert [each.value async for each in EchoStub(channel).many(say("n"))] == ["n 0", "n 1", "n 2"]

    async def test_nowhere_else(self, doors: Doors) -> None:
        async with doors.serving(people=True) as served:
            async with served.token(doors.issuer.token(), port=served.server.port) as channel:
                assert (await refusal(EchoStub(channel).unary(say("x")))).code is grpc.StatusCode.UNAVAILABLE
            async with served.certificate() as channel:
                await EchoStub(channel).unary(say("x"))

    async def test_whoever_keeps_account_of_calls_hears_whose_token_or_certificate_it_was(self, doors: Doors) -> None:
        doors.heard = Heard()
        async with doors.serving(people=True) as served:
            async with served.token(doors.issuer.token("olga")) as channel:
                await EchoStub(channel).unary(say("x"))
            async with served.token(doors.issuer.token("olga", exp=1)) as channel:
                await refusal(EchoStub(channel).unary(say("x")))
            async with served.certificate() as channel:
                await EchoStub(channel).unary(say("x"))
        assert doors.heard.peers == [ADMIN.uri, PERSON.uri]

    async def test_beside_a_certificate_a_token_says_nothing(self, doors: Doors) -> None:
        async with doors.serving(people=True) as served, served.certificate(ALICE) as channel:
            stub = access_pb2_grpc.AccessServiceStub(channel)
            metadata = (("authorization", f"Bearer {doors.issuer.token('olga')}"),)
            found: Any = await stub.GetCaller(pb.GetCallerRequest(), metadata=metadata)
            assert found.identity == ALICE.uri

    async def test_without_a_good_one_nothing_is_parsed(self, doors: Doors) -> None:
        good = doors.issuer.token()
        bad = {
            "none": None,
            "garbage": "x",
            "altered": good[:-8] + ("A" * 8),
            "expired": doors.issuer.token(exp=1),
            "audience": doors.issuer.token(aud="another"),
        }
        async with doors.serving(people=True) as served:
            for name, token in bad.items():
                async with served.token(token) as channel:
                    found = await refusal(EchoStub(channel).unary(say("x")))
                    assert found.code is grpc.StatusCode.UNAUTHENTICATED, name
                    expected = Reason.UNAUTHENTICATED if token is None else Reason.TOKEN_REFUSED
                    assert found.reason is expected, name
            assert doors.world.echo.parsed == 0

    async def test_two_are_none(self, doors: Doors) -> None:
        async with doors.serving(people=True) as served, served.token(None) as channel:
            metadata = tuple(("authorization", f"Bearer {doors.issuer.token(name)}") for name in ("alice", "olga"))
            assert (await refusal(EchoStub(channel).unary(say("x"), metadata=metadata))).reason is Reason.TOKEN_REFUSED

    async def test_keys_rotate_without_a_restart_and_withdrawn_ones_end(self, doors: Doors) -> None:
        old = doors.issuer.token()
        async with doors.serving(people=True) as served, served.token(old) as before:
            await EchoStub(before).unary(say("x"))
            doors.issuer.rotate("two", keep=False)
            await asyncio.sleep(0.25)
            async with served.token(doors.issuer.token()) as after:
                await EchoStub(after).unary(say("x"))
            # The same bytes that were let in a moment ago, from memory: their key is gone.
            assert (await refusal(EchoStub(before).unary(say("x")))).reason is Reason.TOKEN_REFUSED

    async def test_an_issuer_that_is_away_is_told_from_a_bad_token(self, doors: Doors) -> None:
        doors.issuer.broken = True
        async with doors.serving(people=True) as served, served.token(doors.issuer.token()) as channel:
            found = await refusal(EchoStub(channel).unary(say("x")))
            assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, Reason.ISSUER_UNAVAILABLE)
            assert found.retry_s is not None
            doors.issuer.broken = False
            await asyncio.sleep(0.25)
            await EchoStub(channel).unary(say("x"))

    async def test_discovery_of_another_issuer_is_not_believed(self, doors: Doors) -> None:
        doors.issuer.discovered = "https://other.test"
        async with doors.serving(people=True) as served, served.token(doors.issuer.token()) as channel:
            assert (await refusal(EchoStub(channel).unary(say("x")))).reason is Reason.ISSUER_UNAVAILABLE

    async def test_guessing_waits_longer_and_longer_and_others_do_not(self, doors: Doors) -> None:
        async with doors.serving(people=True) as served:
            async with served.token("x.y.z") as channel:
                reasons = [(await refusal(EchoStub(channel).unary(say("x")))).reason for _ in range(8)]
            assert reasons[:6] == [Reason.TOKEN_REFUSED] * 6
            assert reasons[6:] == [Reason.AUTHENTICATION_BACKED_OFF] * 2
            async with served.token(doors.issuer.token()) as channel:
                found = await refusal(EchoStub(channel).unary(say("x")))
                assert (found.code, found.reason) == (
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    Reason.AUTHENTICATION_BACKED_OFF,
                )
                assert found.retry_s is not None
                async with served.certificate(ADMIN) as other:
                    access: Any = await access_pb2_grpc.AccessServiceStub(other).GetAccess(pb.GetAccessRequest())
                    assert [each.address for each in access.backed_off] == ["127.0.0.1"]
                await asyncio.sleep(found.retry_s + 0.05)
                await EchoStub(channel).unary(say("x"))

    async def test_a_stream_ends_with_its_token(self, doors: Doors) -> None:
        async with doors.serving(people=True, oidc_skew_s=0) as served:  # noqa: SIM117 -- the issuer serves by then
            async with served.token(doors.issuer.token(exp=int(time.time()) + 2)) as channel:
                call = EchoStub(channel).many(say("wait"))
                for _ in range(3):
                    await call.read()
                assert (await refusal(call.read())).reason is Reason.UNAUTHENTICATED


class TestCertificates:
    async def test_newer_ones_are_shown_without_a_restart_while_connections_go_on(self, doors: Doors) -> None:
        async with doors.serving() as served, served.certificate() as channel:
            await EchoStub(channel).unary(say("x"))
            before = await asyncio.to_thread(self.serial, doors.world, served.server.port)
            doors.world.files(NODE)
            async with asyncio.timeout(10):
                while await asyncio.to_thread(self.serial, doors.world, served.server.port) == before:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            await EchoStub(channel).unary(say("x"))

    async def test_damaged_ones_are_not_taken_and_said(self, doors: Doors) -> None:
        async with doors.serving() as served:
            before = await asyncio.to_thread(self.serial, doors.world, served.server.port)
            served.entrance._settings.tls_certificate_file.write_text("no certificate")
            await until(lambda: served.entrance.complaint)
            assert await asyncio.to_thread(self.serial, doors.world, served.server.port) == before

    @staticmethod
    def serial(world: World, port: int) -> str:
        files = world.files(ALICE)
        context = ssl.create_default_context(cafile=str(files.authorities))
        context.load_cert_chain(files.certificate, files.key)
        with (
            socket.create_connection(("127.0.0.1", port), 5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as wrapped,
        ):
            return str((wrapped.getpeercert() or {})["serialNumber"])


class TestRevocation:
    @pytest.mark.parametrize("kind", ["identity", "certificate"])
    async def test_ends_streams_and_refuses_calls_of_a_live_connection(self, doors: Doors, kind: str) -> None:
        async with doors.serving() as served, served.certificate(ALICE) as channel:
            call = EchoStub(channel).many(say("wait"))
            for _ in range(3):
                await call.read()
            (stream,) = served.guard._live.values()
            named = ALICE.uri if kind == "identity" else stream.peer.serial
            doors.revoked = Revocations(identities=frozenset({named}))
            found = await refusal(call.read())
            assert (found.code, found.reason) == (grpc.StatusCode.UNAUTHENTICATED, Reason.IDENTITY_REVOKED)
            assert doors.world.echo.cancelled.is_set()
            assert (await refusal(EchoStub(channel).unary(say("x")))).reason is Reason.IDENTITY_REVOKED
            async with served.certificate(ALICE) as renewed:  # another certificate of the same identity
                if kind == "certificate":
                    await EchoStub(renewed).unary(say("x"))
                else:
                    assert (await refusal(EchoStub(renewed).unary(say("x")))).reason is Reason.IDENTITY_REVOKED
            async with served.certificate(PERSON) as other:
                await EchoStub(other).unary(say("x"))


ONE_A_SECOND: dict[str, Any] = {"principal_rate_per_minute": 600, "principal_rate_burst": 1}
PATIENT = RetryPolicy(turn_wait_s_max=20)


class TestTurns:
    """What a client does that has had its share for now."""

    async def test_every_kind_of_call_waits_for_its_turn_beyond_its_deadline(self, doors: Doors) -> None:
        async with doors.serving(**ONE_A_SECOND) as served, served.certificate() as channel:
            stub = EchoStub(intercept_aio_channel(channel, PATIENT))
            for _ in range(2):
                assert (await stub.unary(say("x"), timeout=0.5)).value == "x"
            assert [each.value async for each in stub.many(say("n"), timeout=0.5)] == ["n 0", "n 1", "n 2"]
            assert (await stub.join([say("a"), say("b")], timeout=0.5)).value == "a b"
        assert served.entrance.gate.refusals == {Reason.RATE_LIMITED: 3}

    async def test_also_where_calls_block(self, doors: Doors) -> None:
        async with doors.serving(**ONE_A_SECOND) as served:

            def call() -> list[str]:
                credentials = channel_credentials(served.world.files(PERSON))
                with grpc.secure_channel(f"localhost:{served.server.port}", credentials) as channel:
                    stub = EchoStub(intercept_channel(channel, PATIENT))
                    unary = [stub.unary(say("x"), timeout=0.5).value for _ in range(2)]
                    many = [each.value for each in stub.many(say("n"), timeout=0.5)]
                    return [*unary, *many, stub.join([say("a"), say("b")], timeout=0.5).value]

            assert await asyncio.to_thread(call) == ["x", "x", "n 0", "n 1", "n 2", "a b"]
        assert served.entrance.gate.refusals == {Reason.RATE_LIMITED: 3}

    async def test_what_can_be_sent_but_once_is(self, doors: Doors) -> None:
        async with doors.serving(**ONE_A_SECOND) as served, served.certificate() as channel:
            stub = EchoStub(intercept_aio_channel(channel, PATIENT))
            await stub.unary(say("x"))
            with pytest.raises(RemoteError) as caught:
                await stub.join(say(text) for text in "ab")
        assert caught.value.reason is Reason.RATE_LIMITED
        assert served.entrance.gate.refusals == {Reason.RATE_LIMITED: 1}

    async def test_not_longer_than_the_policy_says(self, doors: Doors) -> None:
        one_a_minute: dict[str, Any] = {"principal_rate_per_minute": 1, "principal_rate_burst": 1}
        async with doors.serving(**one_a_minute) as served, served.certificate() as channel:
            stub = EchoStub(intercept_aio_channel(channel, RetryPolicy(turn_wait_s_max=5)))
            await stub.unary(say("x"))
            with pytest.raises(RemoteError) as caught:
                await asyncio.wait_for(stub.unary(say("x"), timeout=0.5), 2)
        assert caught.value.reason is Reason.RATE_LIMITED


class TestRates:
    async def test_the_default_of_a_control_plane_refuses_the_21st_call_at_once_and_says_when(
        self, doors: Doors
    ) -> None:
        from control_plane.settings import ControlPlaneSettings

        fields = ControlPlaneSettings.model_fields
        defaults = {name: fields[name].default for name in ("principal_rate_per_minute", "principal_rate_burst")}
        assert defaults == {"principal_rate_per_minute": 100, "principal_rate_burst": 20}
        async with doors.serving(**defaults) as served, served.certificate() as channel:
            stub = EchoStub(channel)
            for _ in range(20):
                await stub.unary(say("x"))
            found = await refusal(stub.unary(say("x")))
            assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, Reason.RATE_LIMITED)
            assert found.retry_s is not None
            assert 0 < found.retry_s <= 12
            async with served.certificate(ALICE) as other:
                await EchoStub(other).unary(say("x"))


class TestBlocks:
    async def test_a_blocked_address_is_out_streams_included_until_it_is_lifted(self, doors: Doors) -> None:
        async with doors.serving() as served, served.certificate() as channel, served.certificate(ADMIN) as admin:
            access = access_pb2_grpc.AccessServiceStub(admin)
            own: Any = access.BlockAddress(pb.BlockAddressRequest(network="127.0.0.0/8"))
            assert "your own" in (await refusal(own)).message
            call = EchoStub(channel).many(say("wait"))
            for _ in range(3):
                await call.read()
            served.entrance.gate.block(_block("127.0.0.0/8"), caller="")
            assert (await refusal(call.read())).reason is Reason.ADDRESS_BLOCKED
            assert (await refusal(EchoStub(channel).unary(say("x")))).reason is Reason.ADDRESS_BLOCKED
        async with doors.serving() as served, served.certificate() as channel:  # a restart
            assert (await refusal(EchoStub(channel).unary(say("x")))).reason is Reason.ADDRESS_BLOCKED
            served.entrance.gate.unblock(_block("127.0.0.0/8").network)
            await EchoStub(channel).unary(say("x"))

    async def test_who_may_not_may_not(self, doors: Doors) -> None:
        mallory = Identity.person(TRUST_DOMAIN, "mallory")
        async with doors.serving() as served, served.certificate(mallory) as channel:
            stub = access_pb2_grpc.AccessServiceStub(channel)
            call: Any = stub.SetSecureMode(pb.SetSecureModeRequest(on=True))
            assert (await refusal(call)).reason is Reason.PERMISSION_DENIED


class TestSecureMode:
    async def test_refuses_changes_over_a_restart_until_it_is_ended(self, doors: Doors) -> None:
        async with doors.serving() as served, served.certificate(ADMIN) as channel:
            stub = access_pb2_grpc.AccessServiceStub(channel)
            await EchoStub(channel).unary(say("x"))
            answer: Any = await stub.SetSecureMode(pb.SetSecureModeRequest(on=True, reason="stolen key"))
            assert (answer.secure_mode.on, answer.secure_mode.by) == (True, ADMIN.uri)
            found = await refusal(EchoStub(channel).unary(say("x")))
            assert (found.code, found.reason) == (grpc.StatusCode.FAILED_PRECONDITION, Reason.SECURE_MODE)
            assert "stolen key" in found.message
        async with doors.serving() as served, served.certificate(ADMIN) as channel:
            stub = access_pb2_grpc.AccessServiceStub(channel)
            assert (await refusal(EchoStub(channel).unary(say("x")))).reason is Reason.SECURE_MODE
            answer = await stub.SetSecureMode(pb.SetSecureModeRequest(on=False))
            assert not answer.secure_mode.on
            assert answer.refusals == {"SECURE_MODE": 1}
            await EchoStub(channel).unary(say("x"))


class TestStreams:
    async def test_one_that_takes_too_long_is_ended(self, doors: Doors) -> None:
        async with doors.serving(stream_s_max=0.5) as served, served.certificate() as channel:
            call = EchoStub(channel).many(say("wait"))
            for _ in range(3):
                await call.read()
            assert (await refusal(call.read())).reason is Reason.STREAM_TOO_SLOW

    async def test_one_that_nobody_reads_is_ended_and_one_that_is_read_is_not(self, doors: Doors) -> None:
        async with doors.serving(stream_stall_s=0.5) as served, served.certificate() as channel:
            flood = EchoStub(channel).many(say("flood"))
            await flood.read()
            await until(lambda: any(each.stalled_since for each in served.guard._live.values()))
            waiting = EchoStub(channel).many(say("wait"))
            for _ in range(3):
                await waiting.read()
            await asyncio.wait_for(doors.world.echo.closed.wait(), 10)  # what made the answers, though nobody reads
            await asyncio.sleep(0.6)
            doors.world.echo.release.set()
            assert await waiting.read() is grpc.aio.EOF
            # What was sent before is still there to be read; then comes the end, and why.
            assert (await refusal(_exhaust(flood))).reason is Reason.STREAM_TOO_SLOW


class TestRoles:
    async def test_are_read_again_when_the_file_changes_and_a_bad_file_changes_nothing(self, doors: Doors) -> None:
        doors.roles = doors.world.directory / "roles.json"
        mallory = Identity.person(TRUST_DOMAIN, "mallory")
        _write_roles(doors.roles, "olga")
        async with doors.serving() as served, served.certificate(mallory) as channel:
            assert (await refusal(EchoStub(channel).unary(say("x")))).reason is Reason.PERMISSION_DENIED
            _write_roles(doors.roles, "mallory")
            await until(lambda: "mallory" in str(served.entrance.authority.ground.book))
            await EchoStub(channel).unary(say("x"))
            doors.roles.write_text("{")
            await until(lambda: served.entrance.complaint)
            await EchoStub(channel).unary(say("x"))


async def _exhaust(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


def _write_roles(path: Path, person: str) -> None:
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps({"schema": 1, "bindings": [{"role": "viewer", "persons": [person]}]}))
    os.replace(scratch, path)  # noqa: PTH105


def _block(network: str) -> Any:
    from service.access.protection import Block, parse_network

    return Block(network=parse_network(network), by="olga", why="", since=0.0)
