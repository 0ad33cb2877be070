"""What a control plane may say to a node without making it stop, wait for ever, or run out of memory."""

import asyncio
from datetime import UTC, datetime
from typing import Any, cast

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from data_plane.activation.generation import ActiveGeneration
from data_plane.grpc_subscriber import RECONNECT_S_MAX, Backoff, Figures, GrpcSubscriber, Holding, reconnect_pause_s
from data_plane.staging import StagedTemplates, StageError
from data_plane.updater import Updater
from service.tasks import TaskSupervisor
from service.telemetry import Telemetry
from templates.reasons import AgentFactoryError
from templates.trusted_set import Accepted
from tests.trust_world import NODE, believe, pinned, ready_world


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (Duration(), None),
        (Duration(seconds=-5), None),
        (Duration(seconds=2, nanos=500_000_000), 2.5),
        (Duration(seconds=10**9), RECONNECT_S_MAX),
        (Duration(seconds=2**62), RECONNECT_S_MAX),
        (Duration(seconds=-(2**62)), None),
    ],
)
def test_a_node_that_is_sent_away_comes_back(after: Duration, expected: float | None) -> None:
    assert reconnect_pause_s(after) == expected


class _Nobody:
    def offer(self, generation: int, frame: bytes, sha256: bytes, *, traceparent: str) -> None: ...

    async def renew_lease(self, generation: int, timestamp: bytes) -> None: ...


class _Tripping(GrpcSubscriber):
    """Its first conversation ends in a fault of ours, its second in a cancellation."""

    conversations = 0

    async def _converse(self) -> float | None:
        self.conversations += 1
        if self.conversations == 1:
            raise TypeError("what nobody thought of")
        raise asyncio.CancelledError


async def test_a_fault_in_one_conversation_leads_to_the_next_one_and_not_to_the_end_of_the_node() -> None:
    async def figures() -> Figures:
        raise NotImplementedError

    def holding() -> Holding:
        raise NotImplementedError

    subscriber = _Tripping(
        target="localhost:1",
        credentials=grpc.ssl_channel_credentials,
        listener=_Nobody(),
        holding=holding,
        figures=figures,
        backoff=Backoff(first_s=0.0, max_s=0.0, jitter=lambda: 0.0),
        report_period_s=1.0,
        fetch_timeout_s=1.0,
    )
    with pytest.raises(asyncio.CancelledError):
        await subscriber.run()
    assert subscriber.conversations == 2


class _Stager:
    async def stage(self, accepted: Accepted, *, rehearse: bool) -> StagedTemplates:
        raise StageError("docs/summariser@1.0.0", AgentFactoryError("expected code that compiles, got other code"))


def _updater(tasks: TaskSupervisor) -> Updater:
    def swap(_active: ActiveGeneration) -> None: ...

    async def after(_active: ActiveGeneration) -> None: ...

    return Updater(
        files=cast("Any", None),
        pinned_root=ready_world().roots[0],
        installation=NODE,
        stager=_Stager(),
        swap=swap,
        renew=swap,
        after_swap=after,
        tasks=tasks,
        telemetry=Telemetry(),
        clock=lambda: datetime.now(UTC),
        monotonic=lambda: 0.0,
        bundle_bytes_max=1 << 20,
        generations_kept=2,
    )


async def test_offers_that_will_never_be_looked_at_are_not_kept() -> None:
    """Frames of 32 MiB in falling order, each below the one before, filled the node's memory."""
    async with TaskSupervisor() as tasks:
        updater = _updater(tasks)
        for generation in range(1_000, 0, -1):
            updater.offer(generation, b"frame", bytes(32), traceparent="")
        assert updater.offers_held <= 2
        await asyncio.sleep(0)


async def test_a_stored_generation_that_cannot_be_staged_is_damage_and_not_the_end_of_the_node() -> None:
    world = ready_world()
    accepted = believe(world.publish().bundle(), pinned(world))
    async with TaskSupervisor() as tasks:
        updater = _updater(tasks)
        await updater.begin_with(accepted, started=0.0)
    assert "docs/summariser@1.0.0" in updater.damage
    assert updater.active is None
