"""The guard in front of real servers over mutual TLS: who gets in, what gets out, what is written down."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from service.client_interceptors import RetryPolicy, intercept_aio_channel, intercept_channel
from service.identity import Identity
from service.interceptors import DrainingError, ServerGuard
from service.local_ca import LocalCa
from service.logs import LogFormat, LogLevel, configure_logs
from service.peer import UnauthenticatedError
from service.server import ServerLimits, build_server
from service.status import ExhaustedError, RemoteError, UnavailableError, from_rpc_error
from service.tls import channel_credentials, server_credentials
from templates.reasons import Reason
from tests.integration.echo_world import ALICE, NOBODY, NODE, SECRET, SERVICE, TRUST_DOMAIN, Echo, EchoStub, World, say


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, Echo())
    configure_logs(level=LogLevel.INFO, form=LogFormat.JSON, stream=world.log)
    yield world
    structlog.reset_defaults()


def texts(error: grpc.RpcError) -> str:
    """Everything that the peer can see of an error."""
    assert isinstance(error, grpc.aio.AioRpcError)
    return f"{error.details()} {error.debug_error_string()} {tuple(error.trailing_metadata())}"


async def failure(call: Any) -> RemoteError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert SECRET not in texts(caught.value)
    return from_rpc_error(caught.value)


async def test_all_four_kinds_of_methods_answer(world: World) -> None:
    async with world.serving() as server, world.channel(server) as channel:
        stub = EchoStub(channel)
        assert (await stub.unary(say("hello"))).value == "hello"
        assert [each.value async for each in stub.many(say("n"))] == ["n 0", "n 1", "n 2"]
        assert (await stub.join(iter([say("a"), say("b")]))).value == "a b"
        assert [each.value async for each in stub.talk(iter([say("a"), say("b")]))] == ["A", "B"]


@pytest.mark.parametrize("text", ["crash", "timeout", "unserialisable"])
async def test_the_text_of_an_unhandled_exception_stays_here(world: World, text: str) -> None:
    async with world.serving() as server, world.channel(server) as channel:
        found = await failure(EchoStub(channel).unary(say(text)))
        assert (found.code, found.reason) == (grpc.StatusCode.INTERNAL, Reason.INTERNAL)
        line = (await world.lines(1))[0]
        assert (line["event"], line["level"], line["code"]) == ("rpc_failed", "error", "INTERNAL")
        assert "Traceback" in line["exception"]


@pytest.mark.parametrize("text", ["crash", "unserialisable"])
async def test_the_text_of_an_exception_in_a_stream_stays_here(world: World, text: str) -> None:
    async with world.serving() as server, world.channel(server) as channel:
        received: list[str] = []

        async def consume() -> None:
            received.extend([each.value async for each in EchoStub(channel).many(say(text))])

        assert (await failure(consume())).reason is Reason.INTERNAL
        assert await asyncio.wait_for(world.echo.closed.wait(), 5)


async def test_an_exception_between_reads_stays_here(world: World) -> None:
    async with world.serving() as server, world.channel(server) as channel:
        call = EchoStub(channel).talk(iter([say("a"), say("crash")]))
        assert (await call.read()).value == "A"
        assert (await failure(call.read())).reason is Reason.INTERNAL


async def test_bytes_that_are_no_message_are_refused_in_every_kind(world: World) -> None:
    garbage = b"\xff\xff\xff"
    async with world.serving() as server, world.channel(server) as channel:
        stub = EchoStub(channel)
        for call in (stub.raw(garbage), stub.raw_many(garbage).read(), stub.raw_join(iter([garbage]))):
            found = await failure(call)
            assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, Reason.MALFORMED_MESSAGE)


async def test_an_expected_error_arrives_with_reason_metadata_and_delay(world: World) -> None:
    async with world.serving() as server, world.channel(server) as channel:
        found = await failure(EchoStub(channel).unary(say("busy")))
        assert (found.code, found.reason, found.message) == (
            grpc.StatusCode.UNAVAILABLE,
            Reason.UNAVAILABLE,
            "come back",
        )
        assert (found.metadata, found.retry_s) == ({"queue": "7"}, 0.25)


async def test_an_intended_abort_is_not_swallowed(world: World) -> None:
    async with world.serving() as server, world.channel(server) as channel:
        found = await failure(EchoStub(channel).unary(say("abort")))
        assert (found.code, found.message) == (grpc.StatusCode.ABORTED, "meant to")
        assert (await world.lines(1))[0]["code"] == "ABORTED"


async def test_a_peer_without_permission_is_refused_before_its_request_is_parsed(world: World) -> None:
    async with world.serving() as server, world.channel(server, NOBODY) as channel:
        stub = EchoStub(channel)
        for call in (stub.unary(say("x")), stub.many(say("x")).read(), stub.raw(b"\xff")):
            found = await failure(call)
            assert (found.code, found.reason) == (grpc.StatusCode.PERMISSION_DENIED, Reason.PERMISSION_DENIED)
        assert world.echo.parsed == 0


async def test_a_certificate_that_ran_out_during_the_connection_is_refused(world: World) -> None:
    shift = [timedelta()]

    def clock() -> float:
        return (datetime.now(UTC) + shift[0]).timestamp()

    world.clock = clock
    async with world.serving() as server, world.channel(server) as channel:
        stub = EchoStub(channel)
        await stub.unary(say("x"))
        shift[0] = timedelta(hours=2)
        found = await failure(stub.unary(say("x")))
        assert (found.code, found.reason) == (grpc.StatusCode.UNAUTHENTICATED, UnauthenticatedError.reason)


async def test_a_foreign_trust_domain_is_refused_though_its_authority_is_trusted(world: World) -> None:
    foreign = LocalCa.create(world.directory / "foreign", trust_domain="other.factory", now=datetime.now(UTC))
    issued = foreign.issue(Identity.service("other.factory", "acme", "alice"), now=datetime.now(UTC))
    files = replace(issued.write(world.directory / "stranger"), authorities=world.directory / "ca" / "ca.pem")
    node = world.files(NODE)
    node.authorities.write_bytes(world.authority.certificate + foreign.certificate)
    async with world.serving(node=node) as server:
        address = f"127.0.0.1:{server.port}"
        async with grpc.aio.secure_channel(address, channel_credentials(files)) as channel:
            found = await failure(EchoStub(channel).unary(say("x")))
            assert (found.code, found.reason) == (grpc.StatusCode.UNAUTHENTICATED, UnauthenticatedError.reason)


async def test_calls_beyond_the_limit_are_sent_away_with_a_delay(world: World) -> None:
    async with world.serving(calls_max=1) as server, world.channel(server) as channel:
        stub = EchoStub(channel)
        waiting = stub.unary(say("wait"))
        await world.echo.started.wait()
        found = await failure(stub.unary(say("x")))
        assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, ExhaustedError.reason)
        assert found.retry_s == 1.0
        world.echo.release.set()
        await waiting
        assert (await stub.unary(say("x"))).value == "x"


async def test_streams_beyond_the_limit_are_sent_away(world: World) -> None:
    async with world.serving(streams_max=1) as server, world.channel(server) as channel:
        stub = EchoStub(channel)
        open_stream = stub.many(say("wait"))
        await open_stream.read()
        assert (await failure(stub.many(say("x")).read())).reason is Reason.CALLS_EXHAUSTED
        open_stream.cancel()


async def test_a_call_without_deadline_ends_at_the_servers(world: World) -> None:
    async with world.serving(unary_deadline_s=0.05) as server, world.channel(server) as channel:
        for timeout_s in (None, 60):
            world.echo.cancelled.clear()
            found = await failure(EchoStub(channel).unary(say("wait"), timeout=timeout_s))
            assert (found.code, found.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, Reason.DEADLINE_EXCEEDED)
            assert world.echo.cancelled.is_set()


async def test_the_callers_deadline_stops_the_method(world: World) -> None:
    async with world.serving() as server, world.channel(server) as channel:
        assert (await failure(EchoStub(channel).unary(say("wait"), timeout=0.2))).reason is Reason.DEADLINE_EXCEEDED
        await asyncio.wait_for(world.echo.cancelled.wait(), 5)
        line = (await world.lines(1))[0]
        assert (line["code"], line["reason"]) in {
            ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"),
            ("CANCELLED", "CANCELLED"),  # when the client's own timer is first to tell us
        }


async def test_a_cancelled_call_stops_the_method(world: World) -> None:
    async with world.serving() as server, world.channel(server) as channel:
        call = EchoStub(channel).unary(say("wait"))
        await asyncio.wait_for(world.echo.started.wait(), 5)
        call.cancel()
        await asyncio.wait_for(world.echo.cancelled.wait(), 5)
        stream = EchoStub(channel).many(say("wait"))
        await stream.read()
        stream.cancel()
        await asyncio.wait_for(world.echo.closed.wait(), 5)
        assert {line["code"] for line in await world.lines(2)} == {"CANCELLED"}


async def test_each_call_writes_one_line_and_one_count(world: World) -> None:
    async with world.serving() as server, world.channel(server) as channel:
        stub = EchoStub(channel)
        await stub.unary(say(SECRET))
        await failure(stub.unary(say("busy")))
        first, second = await world.lines(2)
    assert first["event"] == second["event"] == "rpc_answered"
    assert (first["method"], first["peer"], first["code"]) == (f"/{SERVICE}/Unary", ALICE.uri, "OK")
    assert (second["code"], second["reason"]) == ("UNAVAILABLE", "UNAVAILABLE")
    assert SECRET not in world.log.getvalue()
    text = world.telemetry.prometheus_text().decode()
    assert f'agentfactory_rpc_server_calls_total{{code="OK",method="/{SERVICE}/Unary"}} 1.0' in text
    assert f'agentfactory_rpc_server_calls_total{{code="UNAVAILABLE",method="/{SERVICE}/Unary"}} 1.0' in text
    assert "agentfactory_rpc_server_in_flight 0.0" in text


async def test_an_unknown_method_is_unimplemented(world: World) -> None:
    async with world.serving() as server, world.channel(server) as channel:
        assert (await failure(EchoStub(channel).absent(b""))).reason is Reason.UNIMPLEMENTED


async def test_a_message_beyond_the_limit_is_refused(world: World) -> None:
    limits = ServerLimits(message_bytes_max=1024)
    async with world.serving(limits=limits) as server, world.channel(server) as channel:
        assert (await failure(EchoStub(channel).unary(say("x" * 2048)))).reason is Reason.MESSAGE_TOO_LARGE
        assert world.echo.parsed == 0


async def test_health_and_reflection_answer_every_authenticated_peer(world: World) -> None:
    async with world.serving() as server, world.channel(server, NOBODY) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        assert (await health.Check(request)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await server.set_serving(serving=True)
        assert (await health.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
        stub_of: Any = reflection_pb2_grpc.ServerReflectionStub
        reflection = stub_of(channel)
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        answers = [each async for each in reflection.ServerReflectionInfo(asked)]
        assert SERVICE in {each.name for each in answers[0].list_services_response.service}


async def test_draining_lets_running_calls_finish_and_ends_watchers(world: World) -> None:
    async with world.serving() as server, world.channel(server) as channel:
        await server.set_serving(serving=True)
        stub = EchoStub(channel)
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        running = asyncio.ensure_future(stub.unary(say("wait")))
        await asyncio.wait_for(world.echo.started.wait(), 5)
        draining = asyncio.ensure_future(server.drain(30.0))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert (await failure(watch.read())).reason is DrainingError.reason
        assert not draining.done()
        world.echo.release.set()
        assert (await running).value == "wait"
        await asyncio.wait_for(draining, 10)


async def test_draining_ends_the_streams_it_was_told_to_end(world: World) -> None:
    async with world.serving(ended_by_drain=[f"/{SERVICE}/Many"]) as server, world.channel(server) as channel:
        stream = EchoStub(channel).many(say("wait"))
        for _ in range(3):
            await stream.read()
        draining = asyncio.ensure_future(server.drain(30.0))
        found = await failure(stream.read())
        assert (found.code, found.retry_s) == (grpc.StatusCode.UNAVAILABLE, 1.0)
        await asyncio.wait_for(draining, 10)
        assert world.echo.closed.is_set()


async def test_a_call_that_outlives_the_grace_is_cancelled(world: World) -> None:
    async with world.serving() as server, world.channel(server) as channel:
        running = asyncio.ensure_future(failure(EchoStub(channel).unary(say("wait"))))
        await asyncio.wait_for(world.echo.started.wait(), 5)
        await asyncio.wait_for(server.drain(0.05), 10)
        assert (await running).code in {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}


async def test_an_address_in_use_is_a_typed_error(world: World) -> None:
    async with world.serving() as server:
        guard = ServerGuard(trust_domain=TRUST_DOMAIN, authorise=world.authorise, telemetry=world.telemetry)
        with pytest.raises(UnavailableError, match="free address"):
            build_server(
                host="127.0.0.1",
                port=server.port,
                credentials=server_credentials(world.files(NODE)),
                guard=guard,
                register=world.echo.register,
                service_names=[SERVICE],
            )


class Flaky(Echo):
    """Answers at the third attempt."""

    attempts = 0

    async def unary(self, request: StringValue, context: Any) -> StringValue:
        self.attempts += 1
        if self.attempts < 3:
            raise UnavailableError("not yet", retry_s=0.01)
        return request


IDEMPOTENT = RetryPolicy(idempotent_methods=frozenset({f"/{SERVICE}/Unary"}))


async def test_an_idempotent_call_is_retried_and_another_is_not(tmp_path: Path) -> None:
    for policy, attempts in ((IDEMPOTENT, 3), (RetryPolicy(), 1)):
        world = World(tmp_path / str(attempts), Flaky())
        async with world.serving() as server, world.channel(server) as channel:
            stub = EchoStub(intercept_aio_channel(channel, policy))
            if attempts == 3:
                assert (await stub.unary(say("x"))).value == "x"
            else:
                with pytest.raises(RemoteError, match="not yet"):
                    await stub.unary(say("x"))
        assert isinstance(world.echo, Flaky)
        assert world.echo.attempts == attempts


async def test_an_asyncio_stub_raises_remote_errors_in_every_kind(world: World) -> None:
    async with (
        world.serving() as server,
        world.channel(server) as plain,
        intercept_aio_channel(plain, IDEMPOTENT) as channel,
    ):
        await channel.channel_ready()
        assert channel.get_state() is grpc.ChannelConnectivity.READY
        stub = EchoStub(channel)
        assert [each.value async for each in stub.many(say("n"))] == ["n 0", "n 1", "n 2"]
        assert (await stub.join(iter([say("a")]))).value == "a"
        talk = stub.talk()
        await talk.write(say("a"))
        assert (await talk.read()).value == "A"
        await talk.done_writing()
        assert await talk.read() is grpc.aio.EOF
        with pytest.raises(RemoteError):
            await stub.unary(say("crash"))
        with pytest.raises(RemoteError):
            _ = [each async for each in stub.many(say("crash"))]
        stream = stub.many(say("wait"))
        assert (await stream.read()).value == "wait 0"
        assert stream.cancel()


async def test_a_synchronous_stub_raises_remote_errors_in_every_kind(world: World) -> None:
    async with world.serving() as server:
        credentials = channel_credentials(world.files(ALICE))

        def work() -> None:
            with intercept_channel(grpc.secure_channel(f"127.0.0.1:{server.port}", credentials), IDEMPOTENT) as channel:
                stub = EchoStub(channel)
                assert stub.unary(say("x")).value == "x"
                assert stub.unary.with_call(say("x"))[0].value == "x"
                assert stub.unary.future(say("x")).result().value == "x"
                assert [each.value for each in stub.many(say("n"))] == ["n 0", "n 1", "n 2"]
                assert stub.join(iter([say("a")])).value == "a"
                assert [each.value for each in stub.talk(iter([say("a")]))] == ["A"]
                for failing in (stub.unary, stub.unary.with_call):
                    with pytest.raises(RemoteError) as caught:
                        failing(say("crash"))
                    assert caught.value.reason is Reason.INTERNAL
                with pytest.raises(RemoteError):
                    list(stub.many(say("crash")))
                stream = stub.many(say("wait"))
                next(stream)
                stream.cancel()

        await asyncio.to_thread(work)


async def test_the_default_deadline_applies_where_the_caller_gave_none(world: World) -> None:
    async with world.serving() as server, world.channel(server) as channel:
        stub = EchoStub(intercept_aio_channel(channel, RetryPolicy(), default_timeout_s=0.1))
        with pytest.raises(RemoteError) as caught:
            await stub.unary(say("wait"))
        assert caught.value.reason is Reason.DEADLINE_EXCEEDED


async def test_nobody_there_is_unavailable(world: World) -> None:
    async with world.serving() as server, world.channel(server) as channel:
        await server.drain(0.0)
        stub = EchoStub(intercept_aio_channel(channel, IDEMPOTENT))
        with pytest.raises(RemoteError) as caught:
            await stub.unary(say("x"), timeout=2)
        assert caught.value.reason in {Reason.UNAVAILABLE, Reason.DEADLINE_EXCEEDED}
