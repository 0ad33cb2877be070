"""The updater over a real store, with offers as a control plane, honest or not, may make them."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from data_plane.activation.generation import ActiveGeneration
from data_plane.activation.update import SendAck, SendNack, Stage
from data_plane.generation_files import BlobError, GenerationFiles
from data_plane.staging import DryRunFailedError, StageError
from data_plane.updater import Updater
from service.tasks import TaskSupervisor
from service.telemetry import Telemetry
from templates.bundle import Bundle, compress
from templates.reasons import Reason
from templates.repository import RoleKeys, RootSpec, build_root
from templates.trusted_set import Accepted
from tests.installation import ENVIRONMENT
from tests.isolation import guests
from tests.node_world import NodeWorld
from tests.unit.data_plane.fake_worker import until


@dataclass
class Heard:
    """What the control plane hears."""

    acks: list[tuple[int, Stage]] = field(default_factory=list)
    nacks: list[tuple[int, str, Reason, bool]] = field(default_factory=list)
    resyncs: list[str] = field(default_factory=list)

    def ack(self, ack: SendAck, *, took_s: float) -> None:
        self.acks.append((ack.generation, ack.stage))

    def nack(self, nack: SendNack) -> None:
        refusal = nack.refusal
        self.nacks.append((refusal.generation, str(refusal.phase), refusal.reason, refusal.retryable))

    def resync(self, reason: str) -> None:
        self.resyncs.append(reason)


@dataclass
class FakeStager:
    """Stages nothing; fails, or waits, as it is told."""

    error: Exception | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    staged: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()

    async def stage(self, accepted: Accepted, *, rehearse: bool) -> dict[str, object]:
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.staged.append(accepted.generation)
        return {}


class Node:
    def __init__(self, world: NodeWorld, tasks: TaskSupervisor) -> None:
        self.world = world
        self.tasks = tasks
        self.later = timedelta()
        self.stager = FakeStager()
        self.heard = Heard()
        self.swapped: list[int] = []
        self.updater = self.fresh()

    def fresh(self) -> Updater:
        """A node process that starts on the store as it is now."""

        async def after_swap(active: ActiveGeneration) -> None:
            pass

        self.files = GenerationFiles(self.world.store("n1"))
        self.updater = Updater(
            files=self.files,
            pinned_root=self.world.trust.roots[0],
            installation=self.world.node_installation(),
            stager=self.stager,  # type: ignore[arg-type]
            swap=lambda active: self.swapped.append(active.number),
            renew=lambda active: None,
            after_swap=after_swap,
            tasks=self.tasks,
            telemetry=Telemetry(),
            clock=lambda: datetime.now(UTC) + self.later,
            monotonic=lambda: 0.0,
            bundle_bytes_max=10_000_000,
            generations_kept=2,
        )
        self.updater.answers = self.heard
        return self.updater

    def offer(self, bundle: Bundle | None = None, *, number: int = 0, frame: bytes = b"", sha256: bytes = b"") -> int:
        generation = self.world.generation
        assert generation is not None
        data = (bundle or generation.bundle()).to_bytes()
        number = number or generation.number
        self.updater.offer(number, frame or compress(data), sha256 or hashlib.sha256(data).digest())
        return number

    async def settled(self) -> None:
        await until(lambda: not self.updater._update.generation)

    async def accepted(self) -> int:
        number = self.offer()
        await self.settled()
        assert self.updater.active is not None
        assert self.updater.active.number == number
        return number


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    world = NodeWorld.make(tmp_path / "world")
    world.publish(world.command("docs/echo", guests.ECHO))
    async with TaskSupervisor() as tasks:
        yield Node(world, tasks)


async def test_an_offer_is_acknowledged_in_three_stages_and_on_disk_before_the_last(node: Node) -> None:
    number = await node.accepted()
    assert node.heard.acks == [(number, Stage.VERIFIED), (number, Stage.STAGED), (number, Stage.ACTIVE)]
    assert node.swapped == [number]
    belief = GenerationFiles(node.world.store("n1")).belief()
    assert belief is not None
    assert belief.mark is not None
    assert belief.mark.generation == number
    node.fresh()
    await node.updater.boot()
    assert node.swapped == [number, number]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"frame": b"not zstd"}, Reason.FRAME_REFUSED),
        ({"frame": compress(b"not an archive")}, Reason.BUNDLE_INVALID),
        ({"sha256": b"\0" * 32}, Reason.BUNDLE_INVALID),
        ({"number": 9}, Reason.BUNDLE_INVALID),
        ({"frame": compress(b"\0" * 10_000_001)}, Reason.FRAME_REFUSED),
    ],
)
async def test_what_is_not_what_was_announced_is_refused(
    node: Node, changes: dict[str, object], reason: Reason
) -> None:
    number = node.offer(**changes)  # type: ignore[arg-type]
    await node.settled()
    assert node.heard.nacks == [(number, "verify", reason, False)]
    assert node.updater.active is None
    assert node.updater.last_refusal is not None
    assert list((node.world.store("n1") / "generations").iterdir()) == []
    assert not (node.world.store("n1") / "belief").exists()


async def test_a_flipped_byte_in_any_file_of_the_bundle_is_refused(node: Node) -> None:
    assert node.world.generation is not None
    bundle = node.world.generation.bundle()
    for name, data in bundle.files.items():
        if name == "metadata/1.root.json":
            continue  # the node has its own, pinned, and does not look at this one
        changed = data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
        node.offer(replace(bundle, files={**bundle.files, name: changed}))
        await node.settled()
        assert len(node.heard.nacks) == 1, name
        node.heard.nacks.clear()
    assert node.heard.acks == []
    await node.accepted()


async def test_an_older_generation_is_refused_and_the_present_one_stays(node: Node) -> None:
    older = node.world.generation
    node.world.publish(node.world.command("docs/echo", guests.ECHO, version="1.1.0"))
    number = await node.accepted()
    assert older is not None
    node.offer(older.bundle(), number=older.number)
    await node.settled()
    assert node.heard.nacks == [(older.number, "verify", Reason.GENERATION_ROLLBACK, False)]
    node.offer(older.bundle(), number=number + 1)
    await node.settled()
    assert node.heard.nacks[1][2] in {Reason.GENERATION_ROLLBACK, Reason.METADATA_ROLLBACK}
    assert node.swapped == [number]


@pytest.mark.parametrize(
    ("error", "reason", "retryable", "template"),
    [
        (StageError("docs/echo@1.0.0", DryRunFailedError("FUEL")), Reason.DRY_RUN_FAILED, False, "docs/echo@1.0.0"),
        (BlobError("gone"), Reason.BLOB_UNAVAILABLE, True, ""),
        (ZeroDivisionError("ours"), Reason.INTERNAL, True, ""),
    ],
)
async def test_a_generation_that_cannot_be_staged_leaves_the_present_one(
    node: Node, error: Exception, reason: Reason, retryable: object, template: str
) -> None:
    number = await node.accepted()
    node.world.publish(node.world.command("docs/echo", guests.ECHO, version="1.1.0"))
    node.stager.error = error
    offered = node.offer()
    await node.settled()
    assert node.heard.nacks == [(offered, "stage", reason, retryable)]
    assert node.updater.last_refusal is not None
    assert node.updater.last_refusal.refusal.template == template
    assert "ours" not in node.updater.last_refusal.refusal.message
    assert node.swapped == [number]
    node.stager.error = None
    await node.accepted()
    assert node.updater.last_refusal is None


async def test_a_full_disk_refuses_for_now_and_leaves_the_present_one(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = await node.accepted()
    node.world.publish(node.world.command("docs/echo", guests.ECHO, version="1.1.0"))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    offered = node.offer()
    await node.settled()
    assert node.heard.nacks == [(offered, "activate", Reason.STORE_FAILED, True)]
    assert node.swapped == [number]
    monkeypatch.undo()
    await node.accepted()
    node.fresh()
    await node.updater.boot()
    assert node.swapped[-1] == offered


async def test_a_newer_offer_overtakes_one_that_is_being_staged(node: Node) -> None:
    node.stager.gate.clear()
    first = node.offer()
    await until(lambda: node.heard.acks)
    node.world.publish(node.world.command("docs/echo", guests.ECHO, version="1.1.0"))
    node.stager.gate.set()
    second = node.offer()
    await node.settled()
    assert (first, Stage.ACTIVE) not in node.heard.acks
    assert node.heard.acks[-1] == (second, Stage.ACTIVE)
    assert node.swapped == [second]


async def test_a_failed_update_leaves_newer_roots_and_nothing_else(node: Node) -> None:
    await node.accepted()
    installation = node.world.installation
    newer_root = build_root(
        RootSpec(
            environment=ENVIRONMENT,
            mode=installation.charter.mode,
            version=2,
            expires=installation.expires,
            root=RoleKeys(keys=(installation.root.public_key,)),
            targets=RoleKeys(keys=(installation.targets.public_key,)),
            snapshot=RoleKeys(keys=(installation.online.snapshot.public_key,)),
            timestamp=RoleKeys(keys=(installation.online.timestamp.public_key,)),
        ),
        [installation.root],
    )
    before = node.files.belief()
    assert before is not None
    node.world.trust = replace(node.world.trust, roots=(*node.world.trust.roots, newer_root))
    generation = node.world.publish(node.world.command("docs/echo", guests.ECHO, version="1.1.0"))
    bundle = generation.bundle()
    broken = replace(bundle, files={name: data for name, data in bundle.files.items() if "plan.json" not in name})
    node.offer(broken)
    await node.settled()
    assert len(node.heard.nacks) == 1
    after = node.files.belief()
    assert after == replace(before, root=newer_root)


async def test_leases_are_renewed_persisted_and_refused_when_they_are_wrong(node: Node) -> None:
    await node.accepted()
    assert node.updater.active is not None
    first = node.updater.active.accepted.lease
    number = node.updater.active.number
    timestamp = node.world.renewed(now=datetime.now(UTC) + timedelta(seconds=30))
    await node.updater.renew_lease(number, timestamp)
    renewed = node.updater.active.accepted.lease
    assert renewed.version == first.version + 1
    await node.updater.renew_lease(number, timestamp.replace(b"1", b"2", 1))
    assert [each[1] for each in node.heard.nacks] == ["verify"]
    await node.updater.renew_lease(number + 1, timestamp)
    assert len(node.heard.resyncs) == 1
    assert node.updater.active.accepted.lease == renewed
    node.fresh()
    await node.updater.boot()
    assert node.updater.active is not None
    assert node.updater.active.accepted.lease == renewed


async def test_after_a_lost_mark_nothing_older_than_was_held_is_taken(node: Node) -> None:
    older = node.world.generation
    node.world.publish(node.world.command("docs/echo", guests.ECHO, version="1.1.0"))
    await node.accepted()
    (node.world.store("n1") / "belief").unlink()
    node.fresh()
    await node.updater.boot()
    assert "high-water mark" in node.updater.damage
    assert older is not None
    node.offer(older.bundle(), number=older.number)
    await node.settled()
    assert node.heard.nacks[-1][2] is Reason.BUNDLE_INVALID
    assert node.updater.active is None
    await node.accepted()
    assert node.updater.damage == ""


async def test_a_damaged_store_does_not_take_an_expired_generation(node: Node) -> None:
    await node.accepted()
    (node.world.store("n1") / "belief").unlink()
    node.later = timedelta(hours=1)
    node.fresh()
    await node.updater.boot()
    node.offer()
    await node.settled()
    assert node.heard.nacks[-1][2] is Reason.METADATA_EXPIRED
    assert node.updater.active is None


async def test_old_generations_go_when_newer_ones_are_active(node: Node) -> None:
    for minor in range(1, 5):
        node.world.publish(node.world.command("docs/echo", guests.ECHO, version=f"1.{minor}.0"))
        await node.accepted()
    await until(lambda: len(node.files.generations()) == 2)
    numbers = [each.number for each in node.files.generations()]
    assert numbers[0] == node.swapped[-1]
