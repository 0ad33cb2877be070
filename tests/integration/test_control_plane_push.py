"""Nodes at a real control plane: what is pushed, when, to whom, what they may fetch. The nodes here only pretend."""

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any, Self

import grpc.aio
import pytest
import zstandard
from agentfactory.admin.v1 import admin_pb2
from agentfactory.distribution.v1 import distribution_pb2 as pb
from agentfactory.distribution.v1 import distribution_pb2_grpc as rpc

from service.status import from_rpc_error
from templates.bundle import decompress, read_bundle
from templates.reasons import Reason
from tests import small_modules
from tests.control_plane_process import ControlPlaneProcess, PersonClient
from tests.installation import LocalInstallation, make_installation

ANSWER_S = 30.0
COMMAND = {"module": "tool.wasm", "abi": "command"}


def document(name: str, version: str, domain: str = "dev", **members: Any) -> dict[str, Any]:
    base = {"schema": 1, "name": name, "version": version, "domain": domain, "role": "r", "description": "d"}
    return {**base, **members}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> LocalInstallation:
    return make_installation(tmp_path_factory.mktemp("push") / "installation")


@pytest.fixture(scope="module")
def plane(installation: LocalInstallation) -> Iterator[ControlPlaneProcess]:
    with ControlPlaneProcess(installation, {"debounce_ms": "50", "lease_renewal_s": "3600"}) as started:
        yield started
        assert started.stop() == 0


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> LocalInstallation:
    """For tests that start a control plane of their own, one after the other over the same state."""
    return make_installation(tmp_path_factory.mktemp("own") / "installation")


@pytest.fixture(scope="module")
def alice(plane: ControlPlaneProcess) -> Iterator[PersonClient]:
    with plane.person("alice") as client:
        yield client


class PretendedNode:
    """Speaks the protocol and believes everything."""

    def __init__(self, plane: ControlPlaneProcess, name: str) -> None:
        self.name = name
        self._channel = plane.aio_channel(plane.installation.node(name))
        self.stub = rpc.DistributionServiceStub(self._channel)
        self._call: Any = None

    async def __aenter__(self) -> Self:
        self._call = self.stub.Subscribe()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._call.cancel()
        await self._channel.close()

    async def say(self, **message: Any) -> None:
        await self._call.write(pb.SubscribeRequest(**message))

    async def hello(self, *, generation: int = 0, lease_version: int = 0) -> None:
        await self.say(
            hello=pb.Hello(
                protocol_versions=[1],
                node_version="0.1.0",
                wasmtime_version="50.0.1",
                generation=generation,
                lease_version=lease_version,
            )
        )

    async def ack(self, generation: int) -> None:
        for stage in (pb.STAGE_VERIFIED, pb.STAGE_STAGED, pb.STAGE_ACTIVE):
            await self.say(ack=pb.Ack(generation=generation, stage=stage))

    async def take_newest(self) -> int:
        """Say hello with nothing, take what comes, and return its generation."""
        await self.hello()
        generation = (await self.hear()).snapshot_full.generation
        await self.ack(generation)
        return generation

    async def hear(self) -> pb.SubscribeResponse:
        async with asyncio.timeout(ANSWER_S):
            answer = await self._call.read()
        assert isinstance(answer, pb.SubscribeResponse), "the stream ended"
        return answer

    async def status(self) -> grpc.StatusCode:
        async with asyncio.timeout(ANSWER_S):
            code: grpc.StatusCode = await self._call.code()
        return code

    async def fetch(self, *digests: bytes) -> dict[bytes, bytes]:
        frames: dict[bytes, bytes] = {}
        async for part in self.stub.FetchBlobs(pb.FetchBlobsRequest(sha256=digests)):
            frames[part.sha256] = frames.get(part.sha256, b"") + part.piece_zstd
        return {digest: zstandard.ZstdDecompressor().decompress(frame) for digest, frame in frames.items()}


_numbers = itertools.count(1)


@pytest.fixture
async def node(plane: ControlPlaneProcess) -> AsyncIterator[PretendedNode]:
    """A node of its own for each test, connected and silent."""
    async with PretendedNode(plane, f"node-{next(_numbers)}") as connected:
        yield connected


@pytest.fixture
async def current(node: PretendedNode) -> int:
    """The generation that the test's node has taken."""
    return await node.take_newest()


def publish(alice: PersonClient, installation: LocalInstallation, name: str, version: str = "1.0.0") -> int:
    change = alice.publish(installation, document(name, version, code=COMMAND), small_modules.command(), by=["bob"])
    return change.generation


async def publishing(alice: PersonClient, installation: LocalInstallation, name: str, version: str = "1.0.0") -> int:
    return await asyncio.to_thread(publish, alice, installation, name, version)


async def view_of(alice: PersonClient, node: PretendedNode) -> admin_pb2.Node:
    listed = await asyncio.to_thread(alice.fleet.ListNodes, admin_pb2.ListNodesRequest())
    return next(each for each in listed.nodes if each.id == node.name)


async def revoke(alice: PersonClient, **target: str) -> int:
    request = admin_pb2.RevokeRequest(reason="hostile", **target)  # type: ignore[arg-type]  # no target is a bool
    return (await asyncio.to_thread(alice.rollouts.Revoke, request)).generation


async def test_a_node_gets_the_newest_generation_and_then_every_newer_one(
    node: PretendedNode, alice: PersonClient, installation: LocalInstallation
) -> None:
    await node.hello()
    first = (await node.hear()).snapshot_full
    data = decompress(first.bundle_zstd)
    assert hashlib.sha256(data).digest() == first.bundle_sha256
    await node.ack(first.generation)
    newer = await publishing(alice, installation, "ordinary")
    second = (await node.hear()).snapshot_full
    assert second.generation == newer == first.generation + 1
    assert "dev/templates/ordinary@1.0.0.json" in read_bundle(decompress(second.bundle_zstd)).targets


async def test_only_the_newest_of_several_waits_for_a_busy_node(
    node: PretendedNode, alice: PersonClient, installation: LocalInstallation
) -> None:
    await node.hello()
    first = (await node.hear()).snapshot_full.generation
    newest = 0
    for patch in range(3):
        newest = await publishing(alice, installation, "several", f"1.0.{patch}")
    await asyncio.sleep(0.2)
    await node.ack(first)
    assert (await node.hear()).snapshot_full.generation == newest


async def test_publications_within_the_debounce_travel_together(
    node: PretendedNode, current: int, alice: PersonClient, installation: LocalInstallation
) -> None:
    changes = [
        await asyncio.to_thread(
            alice.submit, document(f"many-{number}", "1.0.0", code=COMMAND), small_modules.command()
        )
        for number in range(6)
    ]
    await asyncio.gather(*(asyncio.to_thread(alice.approve, change, installation, "bob") for change in changes))
    heard = [current]
    while heard[-1] < current + len(changes):
        heard.append((await node.hear()).snapshot_full.generation)
        await node.ack(heard[-1])
    assert len(heard) - 1 < len(changes)


async def test_a_revocation_overtakes_a_busy_node(
    node: PretendedNode, current: int, alice: PersonClient, installation: LocalInstallation
) -> None:
    busy_with = await publishing(alice, installation, "hostile")
    assert (await node.hear()).snapshot_full.generation == busy_with
    revoked = await revoke(alice, template="dev/hostile@1.0.0")
    revocation = (await node.hear()).revocation
    assert revocation.generation == revoked
    assert "dev/templates/hostile@1.0.0.json" not in read_bundle(decompress(revocation.bundle_zstd)).targets


async def test_a_refusal_is_shown_and_not_repeated(
    node: PretendedNode, current: int, alice: PersonClient, installation: LocalInstallation
) -> None:
    refused = await publishing(alice, installation, "refused")
    assert (await node.hear()).snapshot_full.generation == refused
    await node.say(
        nack=pb.Nack(
            generation=refused,
            phase=pb.PHASE_VERIFY,
            template="dev/refused@1.0.0",
            reason="APPROVAL_UNDER_THRESHOLD",
            message="expected 2\nreviewers",
        )
    )
    newer = await publishing(alice, installation, "refused", "1.0.1")
    assert (await node.hear()).snapshot_full.generation == newer, "the next thing that it hears is newer"
    view = await view_of(alice, node)
    assert (view.connected, view.generation, view.stage) == (True, current, "ACTIVE")
    assert (view.refused_generation, view.refusal_reason) == (refused, "APPROVAL_UNDER_THRESHOLD")
    assert "\n" not in view.refusal_message
    await node.ack(newer)
    await node.say(report=pb.Report(generation=newer, in_flight=4, agents=5, isolation="rlimits-only"))
    view = await view_of(alice, node)
    while not view.agents:
        view = await view_of(alice, node)
    assert (view.generation, view.refusal_reason, view.in_flight, view.agents) == (newer, "", 4, 5)
    listed = await asyncio.to_thread(alice.rollouts.ListGenerations, admin_pb2.ListGenerationsRequest())
    assert listed.generations[0].nodes_active == 1


async def test_a_retryable_refusal_is_sent_again(node: PretendedNode) -> None:
    await node.hello()
    generation = (await node.hear()).snapshot_full.generation
    await node.say(nack=pb.Nack(generation=generation, phase=pb.PHASE_STAGE, reason="BLOB_MISSING", retryable=True))
    assert (await node.hear()).snapshot_full.generation == generation


async def test_resync_is_answered_in_full(node: PretendedNode, alice: PersonClient) -> None:
    listed = await asyncio.to_thread(alice.fleet.ListNodes, admin_pb2.ListNodesRequest())
    await node.hello(generation=listed.generation, lease_version=0)
    lease = (await node.hear()).lease
    assert lease.generation == listed.generation
    assert lease.timestamp
    await node.say(resync=pb.Resync(reason="another history"))
    assert (await node.hear()).snapshot_full.generation == listed.generation


async def test_leases_are_renewed_before_they_run_out(own: LocalInstallation) -> None:
    with ControlPlaneProcess(own, {"lease_s": "30", "lease_renewal_s": "0.2"}) as plane:
        async with PretendedNode(plane, "node-1") as node:
            generation = await node.take_newest()
            leases = [(await node.hear()).lease for _ in range(3)]
        assert plane.stop() == 0
    assert all(lease.generation == generation for lease in leases)
    assert len({lease.timestamp for lease in leases}) == 3


async def test_only_code_of_the_plan_is_served(
    node: PretendedNode, alice: PersonClient, installation: LocalInstallation
) -> None:
    module, waiting = small_modules.command(pages=5), small_modules.command(pages=3)
    content = document("served", "1.0.0", code=COMMAND)
    await asyncio.to_thread(lambda: alice.publish(installation, content, module, by=["bob"]))
    await asyncio.to_thread(alice.submit, document("served", "1.0.1", code=COMMAND), waiting)
    digest, unapproved = hashlib.sha256(module).digest(), hashlib.sha256(waiting).digest()
    assert await node.fetch(digest) == {digest: module}
    for wrong, reason in (
        ([unapproved], Reason.BLOB_MISSING),
        ([digest, unapproved], Reason.BLOB_MISSING),
        ([b"x"], Reason.BLOB_MISSING),
        ([], Reason.INVALID_REQUEST),
        ([digest] * 257, Reason.INVALID_REQUEST),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await node.fetch(*wrong)
        assert from_rpc_error(refused.value).reason is reason
    await revoke(alice, module=digest.hex())
    with pytest.raises(grpc.aio.AioRpcError) as revoked:
        await node.fetch(digest)
    assert from_rpc_error(revoked.value).reason is Reason.BLOB_MISSING


async def test_a_big_blob_comes_in_pieces(
    node: PretendedNode, alice: PersonClient, installation: LocalInstallation
) -> None:
    noise = b"".join(hashlib.sha256(bytes([number % 256, number // 256])).digest() for number in range(30_000))
    content = document("echo", "1.0.0", code={"source": "agent.py", "image": "cpython"})
    image = document("cpython", "0.1.0", "images", code={"module": "i.wasm", "abi": "component"})
    await asyncio.to_thread(lambda: alice.publish(installation, image, small_modules.image(), by=["bob"]))
    source = b"# " + noise.hex().encode()[:1_000_000]
    await asyncio.to_thread(lambda: alice.publish(installation, content, source, by=["bob"]))
    digests = [hashlib.sha256(source).digest(), hashlib.sha256(small_modules.image()).digest()]
    assert await node.fetch(*digests) == dict(zip(digests, (source, small_modules.image()), strict=True))


async def test_a_revoked_node_hears_of_it_and_gets_no_code(
    node: PretendedNode, current: int, alice: PersonClient
) -> None:
    revoked = await revoke(alice, node=node.name)
    heard = await node.hear()
    while heard.WhichOneof("message") != "revocation":  # an update of an earlier test may still be on its way
        heard = await node.hear()
    assert heard.revocation.generation == revoked > current
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await node.fetch(hashlib.sha256(small_modules.command()).digest())
    assert from_rpc_error(refused.value).reason is Reason.NODE_REVOKED


async def test_acknowledging_before_hello_ends_the_stream(node: PretendedNode) -> None:
    await node.say(ack=pb.Ack(generation=1, stage=pb.STAGE_VERIFIED))
    assert (await node.hear()).go_away.reason == "HELLO_EXPECTED"
    assert await node.status() is grpc.StatusCode.OK


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"ack": pb.Ack(generation=1)},
        {"hello": pb.Hello(protocol_versions=range(20))},
    ],
    ids=["nothing", "no stage", "too many versions"],
)
async def test_a_malformed_message_ends_the_stream(node: PretendedNode, message: dict[str, Any]) -> None:
    await node.say(**message)
    assert await node.status() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_second_stream_of_a_node_replaces_the_first(plane: ControlPlaneProcess, node: PretendedNode) -> None:
    generation = await node.take_newest()
    async with PretendedNode(plane, node.name) as second:
        assert await second.take_newest() == generation
        assert (await node.hear()).go_away.reason == "REPLACED"


async def test_a_silent_node_is_sent_away(own: LocalInstallation) -> None:
    with ControlPlaneProcess(own, {"ack_timeout_s": "0.2"}) as plane:
        async with PretendedNode(plane, "node-1") as node:
            await node.hello()
            await node.hear()
            assert (await node.hear()).go_away.reason == "ACK_OVERDUE"


async def test_sigterm_says_goodbye_and_the_next_process_pushes_on(own: LocalInstallation) -> None:
    with ControlPlaneProcess(own) as plane, plane.person("alice") as alice:
        async with PretendedNode(plane, "node-1") as node:
            taken = await node.take_newest()
            newer = await publishing(alice, own, "restarted")
            assert (await node.hear()).snapshot_full.generation == newer
            stopping = asyncio.get_running_loop().run_in_executor(None, plane.stop)
            goodbye = (await node.hear()).go_away
            assert goodbye.reason == "SHUTTING_DOWN"
            assert 0 <= goodbye.reconnect_after.ToTimedelta().total_seconds() <= 5
            assert await stopping == 0
    with ControlPlaneProcess(own) as again, again.person("alice") as alice:
        async with PretendedNode(again, "node-1") as node:
            view = await view_of(alice, node)
            assert (view.generation, view.stage) == (taken, "ACTIVE"), "the fleet is remembered"
            await node.hello(generation=taken, lease_version=1)
            assert (await node.hear()).snapshot_full.generation == newer


async def test_a_hundred_nodes_hear_of_a_publication(
    plane: ControlPlaneProcess, alice: PersonClient, installation: LocalInstallation
) -> None:
    greeted = asyncio.Barrier(101)

    async def live(name: str) -> int:
        async with PretendedNode(plane, name) as node:
            await node.take_newest()
            await greeted.wait()
            generation = (await node.hear()).snapshot_full.generation
            await node.ack(generation)
            return generation

    living = [asyncio.ensure_future(live(f"crowd-{number}")) for number in range(100)]
    await greeted.wait()
    newer = await publishing(alice, installation, "crowded")
    assert await asyncio.gather(*living) == [newer] * 100
