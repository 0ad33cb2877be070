"""Mailboxes, debounce, timers and what nodes may fetch: the asynchronous half of the push, without sockets."""

import asyncio
from dataclasses import dataclass, replace

import pytest

from control_plane.fan_out import FanOut, FullMessage, LeaseMessage, Message, PartingMessage, PushTimes, Stream
from control_plane.fleet import Refusal
from control_plane.publication import Update, encode
from control_plane.push import Acked, Hello, Parting, ResyncAsked, Stage
from service.telemetry import SpanName, Telemetry
from templates.revocations import Revocations
from tests.recorded_tracing import PARENT, RecordedSpan, RecordedTracing
from tests.unit.control_plane.world import COMMAND, IMAGE, SOURCE, World, document, source_document

QUICK = PushTimes(debounce_s=0.01, ack_timeout_s=30.0, reconnect_window_s=1.0)


@dataclass
class Pushed:
    """A world whose publications are pushed."""

    world: World
    fan_out: FanOut

    def greet(self, name: str = "node-1", *, generation: int = 0) -> Stream:
        stream = self.fan_out.join(name)
        hello = Hello(protocol_versions=frozenset({1}), generation=generation, lease_version=0)
        self.fan_out.greeted(stream, hello, version="0.1.0", wasmtime_version="50.0.1")
        return stream

    def ack(self, stream: Stream, generation: int, stage: Stage = Stage.ACTIVE) -> None:
        self.fan_out.acked(stream, Acked(generation=generation, stage=stage))

    async def tool(self, version: str) -> int:
        code = {"module": "tool.wasm", "abi": "command"}
        return (await self.world.publish(document("tool", version, code=code), COMMAND)).generation


async def heard(stream: Stream) -> Message | None:
    async with asyncio.timeout(10):
        return await stream.next_message()


async def full(stream: Stream) -> Update:
    message = await heard(stream)
    assert isinstance(message, FullMessage)
    return message.update


@pytest.fixture
async def pushed(world: World) -> Pushed:
    fan_out = FanOut(times=QUICK, telemetry=Telemetry(), clock=world.clock)
    world.publisher._audience = fan_out
    await world.start()
    return Pushed(world, fan_out)


async def test_what_was_published_before_waits_for_a_node(pushed: Pushed) -> None:
    assert (await full(pushed.greet())).generation == 1


async def test_a_message_that_was_not_sent_yet_is_overtaken(pushed: Pushed) -> None:
    stream = pushed.greet()
    await pushed.world.publisher.revoke(
        Revocations(nodes=frozenset({"other"})), what="node other", author="bob", why=""
    )
    message = await heard(stream)
    assert isinstance(message, FullMessage)
    assert (message.update.generation, message.urgent) == (2, True)


async def test_the_newest_lease_wins_and_updates_leave_before_leases(pushed: Pushed) -> None:
    stream = pushed.greet()
    await heard(stream)
    pushed.ack(stream, 1)
    for _ in range(3):
        await pushed.world.publisher.renew_lease()
    lease = await heard(stream)
    assert isinstance(lease, LeaseMessage)
    assert lease.timestamp == pushed.world.publisher.present.metadata["timestamp.json"]
    await pushed.world.publisher.renew_lease()
    pushed.fan_out.deliver(stream, ResyncAsked())
    assert (await full(stream)).timestamp == pushed.world.publisher.present.metadata["timestamp.json"]


async def test_a_lease_that_is_renewed_within_the_debounce_goes_out_with_its_generation(pushed: Pushed) -> None:
    pushed.fan_out._times = replace(QUICK, debounce_s=0.2)
    stream = pushed.greet()
    await heard(stream)
    pushed.ack(stream, 1)
    await pushed.tool("1.0.0")
    await pushed.world.publisher.renew_lease()
    update = await full(stream)
    assert (update.generation, update.lease_version) == (2, 3)


async def test_a_revocation_does_not_wait_for_the_debounce(pushed: Pushed) -> None:
    pushed.fan_out._times = replace(QUICK, debounce_s=3600)
    stream = pushed.greet()
    await heard(stream)
    pushed.ack(stream, 1)
    await pushed.tool("1.0.0")
    await pushed.world.publisher.revoke(
        Revocations(nodes=frozenset({"other"})), what="node other", author="bob", why=""
    )
    assert (await full(stream)).generation == 3


async def test_timers_are_carried_out(pushed: Pushed) -> None:
    stream = pushed.greet()
    await heard(stream)
    refusal = Refusal(generation=1, phase="STAGE", template="", reason="BLOB_MISSING", message="", retryable=True)
    pushed.fan_out.nacked(stream, refusal)
    assert (await full(stream)).generation == 1
    pushed.fan_out._times = replace(QUICK, ack_timeout_s=0.01)
    pushed.ack(stream, 1, Stage.VERIFIED)
    parting = await heard(stream)
    assert isinstance(parting, PartingMessage)
    assert parting.reason is Parting.ACK_OVERDUE
    assert await heard(stream) is None


async def test_a_newer_stream_of_a_node_ends_the_older_one(pushed: Pushed) -> None:
    older, newer = pushed.greet(), pushed.greet()
    parting = await heard(older)
    assert isinstance(parting, PartingMessage)
    assert parting.reason is Parting.REPLACED
    pushed.fan_out.left(older)
    (view,) = pushed.fan_out.nodes()
    assert view.connected, "the newer one is still there"
    pushed.fan_out.left(newer)
    (view,) = pushed.fan_out.nodes()
    assert not view.connected
    assert await heard(newer) is None


async def test_draining_says_goodbye_to_everyone(pushed: Pushed) -> None:
    streams = [pushed.greet(f"node-{number}") for number in range(3)]
    pushed.fan_out.drain()
    for stream in streams:
        parting = await heard(stream)
        assert isinstance(parting, PartingMessage)
        assert 0 <= parting.reconnect_after_s < 1


async def test_what_a_node_claims_before_it_was_sent_anything_is_not_shown(pushed: Pushed) -> None:
    stream = pushed.fan_out.join("node-1")
    pushed.ack(stream, 1)
    assert pushed.fan_out.nodes() == []
    liar = pushed.greet("node-2")
    pushed.ack(liar, 99)
    (view,) = pushed.fan_out.nodes()
    assert view.generation == 0


async def test_the_fleet_is_counted_and_its_changes_are_handed_over_once(pushed: Pushed) -> None:
    stream = pushed.greet()
    pushed.greet("node-2")
    pushed.ack(stream, 1)
    assert pushed.fan_out.reach(1) == (1, 2)
    assert [view.id for view in pushed.fan_out.take_changed()] == ["node-1", "node-2"]
    assert pushed.fan_out.take_changed() == []


async def test_only_the_code_of_the_plan_may_be_fetched_and_none_that_is_revoked(pushed: Pushed) -> None:
    world = pushed.world
    image = await world.publish_image()
    await world.submit(document("waiting", code={"module": "tool.wasm", "abi": "command"}), COMMAND)
    assert pushed.fan_out.blobs_for("node-1") == {}, "an image alone is in no plan"
    await world.publish(source_document(), SOURCE)
    assert sorted(pushed.fan_out.blobs_for("node-1").values()) == sorted([len(SOURCE), len(IMAGE)])
    await world.publisher.revoke(Revocations(nodes=frozenset({"node-1"})), what="node", author="bob", why="")
    assert pushed.fan_out.is_revoked("node-1")
    assert pushed.fan_out.blobs_for("node-1") == {}
    assert len(pushed.fan_out.blobs_for("node-2")) == 2
    assert image.code_sha256 is not None
    await world.publisher.revoke(
        Revocations(modules=frozenset({image.code_sha256})), what="module", author="bob", why=""
    )
    assert pushed.fan_out.blobs_for("node-2") == {}


async def test_a_node_may_still_fetch_for_a_generation_that_was_overtaken(pushed: Pushed) -> None:
    world = pushed.world
    await world.publish_image()
    await world.publish(source_document(), SOURCE)
    for version in range(1, 8):
        await world.publish(source_document(version=f"1.0.{version}"), SOURCE + b"#" * version)
    assert len(SOURCE) in pushed.fan_out.blobs_for("node-1").values()
    await world.publish(source_document(version="1.0.8"), SOURCE + b"#" * 8)
    assert len(SOURCE) not in pushed.fan_out.blobs_for("node-1").values()


async def test_a_generation_is_encoded_once_for_everyone(pushed: Pushed) -> None:
    streams = [pushed.greet(f"node-{number}") for number in range(5)]
    updates = [await full(stream) for stream in streams]
    assert len({id(update.frame) for update in updates}) == 1
    assert updates[0] == encode(pushed.world.publisher.present)


# Traces


@pytest.fixture
def tracing(pushed: Pushed) -> RecordedTracing:
    tracing = RecordedTracing()
    pushed.fan_out._telemetry = Telemetry(tracing=tracing)
    return tracing


def publication(pushed: Pushed, traceparent: str = PARENT) -> None:
    """Publish what is published once more, from a traced call."""
    present = pushed.world.publisher.present
    pushed.fan_out.published(present, replace(encode(present), traceparent=traceparent), urgent=True)


def ended(span: RecordedSpan) -> tuple[int, str]:
    return span.ends, span.failure


async def test_a_push_is_traced_below_its_publication_until_it_is_active(
    pushed: Pushed, tracing: RecordedTracing
) -> None:
    publication(pushed)
    stream = pushed.greet()
    message = await heard(stream)
    (span,) = tracing.named(SpanName.PUSH)
    assert isinstance(message, FullMessage)
    assert message.traceparent == span.traceparent
    assert span.parent == PARENT
    pushed.ack(stream, 1, Stage.VERIFIED)
    assert ended(span) == (0, "")
    pushed.ack(stream, 1)
    pushed.ack(stream, 1)
    pushed.fan_out.left(stream)
    assert ended(span) == (1, "")
    assert span.attributes == {"node": "node-1", "generation": 1, "stage": "ACTIVE"}


async def test_a_push_that_fails_says_why(pushed: Pushed, tracing: RecordedTracing) -> None:
    refusal = Refusal(
        generation=1, phase="STAGE", template="", reason="CODE\nREFUSED" * 99, message="", retryable=False
    )
    refused, gone, overtaken = (pushed.greet(name) for name in ("refused", "gone", "overtaken"))
    pushed.fan_out.nacked(refused, refusal)
    pushed.fan_out.left(gone)
    pushed.fan_out.deliver(overtaken, ResyncAsked())
    first, second, third, fourth = tracing.named(SpanName.PUSH)
    assert first.failure.startswith("CODE\ufffdREFUSED")
    assert len(first.failure) < 1_000
    assert ended(second) == (1, "DISCONNECTED")
    assert ended(third) == (1, "OVERTAKEN")
    assert ended(fourth) == (0, "")


async def test_a_refused_lease_does_not_end_the_push_of_a_newer_generation(
    pushed: Pushed, tracing: RecordedTracing
) -> None:
    stream = pushed.greet()
    await heard(stream)
    pushed.ack(stream, 1)
    await pushed.tool("1.0.0")
    assert (await full(stream)).generation == 2
    refusal = Refusal(generation=1, phase="VERIFY", template="", reason="X", message="", retryable=False)
    pushed.fan_out.nacked(stream, refusal)
    assert [ended(span) for span in tracing.named(SpanName.PUSH)] == [(1, ""), (0, "")]


async def test_a_renewed_lease_takes_the_publications_trace_along_within_the_debounce_only(
    pushed: Pushed, tracing: RecordedTracing
) -> None:
    pushed.fan_out._times = replace(QUICK, debounce_s=3600)
    stream = pushed.greet()
    pushed.ack(stream, 1)
    present = pushed.world.publisher.present
    later = replace(encode(present), generation=2, traceparent=PARENT)
    pushed.fan_out.published(present, later, urgent=False)
    pushed.fan_out.lease_renewed(
        replace(present, accepted=replace(present.accepted, generation=2)), replace(later, traceparent="")
    )
    pushed.fan_out._announce(urgent=False)
    assert tracing.named(SpanName.PUSH)[-1].parent == PARENT
    pushed.fan_out.lease_renewed(
        replace(present, accepted=replace(present.accepted, generation=2)), replace(later, traceparent="")
    )
    pushed.greet("latecomer")
    assert tracing.named(SpanName.PUSH)[-1].parent == ""
