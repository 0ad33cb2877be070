"""What a node's spans say of updates that do not end well, and of work that a worker reported, or did not."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import pytest
from agentfactory.distribution.v1 import distribution_pb2 as pb

from data_plane.activation.generation import ActiveGeneration
from data_plane.grpc_subscriber import Backoff, Figures, GrpcSubscriber, Holding
from data_plane.sandbox_span import describe_sandbox
from data_plane.staging import StagedTemplates, StageError
from data_plane.updater import Updater
from sandbox.outcome import Failure, FailureKind, Outcome, Usage
from service.tasks import TaskSupervisor
from service.telemetry import SpanName, Telemetry, current_trace_context
from templates.bundle import Bundle, compress
from templates.reasons import AgentFactoryError
from templates.trusted_set import Accepted
from tests.recorded_tracing import PARENT, RecordedSpan, RecordedTracing
from tests.trust_world import NODE, NOW, ready_world


class Stager:
    """Stages nothing, in a trace that it remembers."""

    def __init__(self) -> None:
        self.called = asyncio.Event()
        self.trace_context = ""
        self.ends = asyncio.Event()

    async def stage(self, accepted: Accepted, *, rehearse: bool) -> StagedTemplates:
        self.trace_context = current_trace_context()
        self.called.set()
        await self.ends.wait()
        raise StageError("docs/summariser@1.0.0", AgentFactoryError("expected code that starts, got other code"))


class Traced:
    """An updater, its spans, and a bundle that it believes."""

    def __init__(self, tasks: TaskSupervisor) -> None:
        world = ready_world()
        self.bundle: Bundle = world.publish().bundle()
        self.stager = Stager()
        self.tracing = RecordedTracing()
        self.tasks = tasks

        def swap(_active: ActiveGeneration) -> None: ...

        async def after(_active: ActiveGeneration) -> None: ...

        self.updater = Updater(
            files=cast("Any", None),
            pinned_root=world.roots[0],
            installation=NODE,
            stager=self.stager,
            swap=swap,
            renew=swap,
            after_swap=after,
            tasks=tasks,
            telemetry=Telemetry(tracing=self.tracing),
            clock=lambda: NOW,
            monotonic=lambda: 0.0,
            bundle_bytes_max=1 << 20,
            generations_kept=2,
        )

    def offer(self, generation: int, traceparent: str = PARENT) -> None:
        data = self.bundle.to_bytes()
        self.updater.offer(generation, compress(data), hashlib.sha256(data).digest(), traceparent=traceparent)

    async def rest(self) -> None:
        """Wait until nothing is under way."""
        async with asyncio.timeout(10):
            while self.tasks.running:
                await asyncio.wait(set(self.tasks._tasks))

    @property
    def updates(self) -> list[RecordedSpan]:
        return self.tracing.named(SpanName.UPDATE)


@pytest.fixture
async def traced() -> AsyncIterator[Traced]:
    async with TaskSupervisor() as tasks:
        yield Traced(tasks)


async def test_a_refused_update_ends_below_its_push_with_the_reason(traced: Traced) -> None:
    traced.stager.ends.set()
    traced.offer(1)
    await traced.rest()
    (update,) = traced.updates
    assert (update.parent, update.failure, update.ends) == (PARENT, "INTERNAL", 1)
    (verify,), (stage,) = (traced.tracing.named(name) for name in (SpanName.UPDATE_VERIFY, SpanName.UPDATE_STAGE))
    assert verify.parent == stage.parent == update.traceparent
    assert (verify.failure, stage.failure) == ("", "StageError")
    assert traced.stager.trace_context == stage.traceparent


async def test_an_update_that_a_newer_one_overtakes_ends_so(traced: Traced) -> None:
    traced.offer(1)
    async with asyncio.timeout(10):
        await traced.stager.called.wait()
    traced.offer(2, traceparent="")
    await traced.rest()
    first, second = traced.updates
    assert (first.failure, first.ends) == ("OVERTAKEN", 1)
    assert (second.parent, second.failure, second.ends) == ("", "BUNDLE_INVALID", 1)
    verify = traced.tracing.named(SpanName.UPDATE_VERIFY)[-1]
    assert verify.parent == second.traceparent


async def test_a_generation_that_is_older_than_the_active_one_touches_no_trace(traced: Traced) -> None:
    traced.updater._update.active = 5
    traced.offer(1)
    assert traced.tracing.spans == []


class Heard:
    """A listener that remembers the trace contexts."""

    def __init__(self) -> None:
        self.traceparents: list[str] = []

    def offer(self, generation: int, frame: bytes, sha256: bytes, *, traceparent: str) -> None:
        self.traceparents.append(traceparent)

    async def renew_lease(self, generation: int, timestamp: bytes) -> None: ...


@pytest.mark.parametrize(
    ("sent", "taken"),
    [(PARENT, PARENT), ("", ""), (PARENT + "\n", ""), (PARENT.upper(), ""), ("x" * 1_000_000, "")],
    ids=["one", "none", "line break", "capitals", "a megabyte"],
)
async def test_a_pushs_trace_context_is_taken_only_if_it_is_one(sent: str, taken: str) -> None:
    heard = Heard()

    async def figures() -> Figures:
        raise AssertionError

    def holding() -> Holding:
        raise AssertionError

    subscriber = GrpcSubscriber(
        target="localhost:1",
        credentials=grpc.ssl_channel_credentials,
        listener=heard,
        holding=holding,
        figures=figures,
        backoff=Backoff(first_s=0.0, max_s=0.0, jitter=lambda: 0.0),
        report_period_s=1.0,
        fetch_timeout_s=1.0,
    )
    await subscriber._take(pb.SubscribeResponse(snapshot_full=pb.SnapshotFull(generation=1, traceparent=sent)))
    await subscriber._take(pb.SubscribeResponse(revocation=pb.Revocation(generation=2, traceparent=sent)))
    assert heard.traceparents == [taken, taken]


def described(outcome: Outcome, *, elapsed_s: float, host_call_s: float = 0.0) -> RecordedSpan:
    span = RecordedSpan(SpanName.SANDBOX, {}, parent="", traceparent="")
    describe_sandbox(span, outcome, elapsed_s=elapsed_s, host_call_s=host_call_s)
    return span


def test_the_sandboxs_span_is_what_the_worker_reported() -> None:
    usage = Usage(fuel=7, wall_us=900_000, guest_us=200_000, host_calls=3)
    span = described(Outcome(b"", None, usage), elapsed_s=1.0, host_call_s=0.5)
    assert (span.took_s, span.failure) == (0.9, "")
    assert span.attributes == {
        "guest_s": 0.2,
        "host_call_s": 0.5,
        "queued_s": pytest.approx(0.3),
        "fuel": 7,
        "host_calls": 3,
    }


def test_a_worker_that_died_reported_nothing() -> None:
    span = described(Outcome(None, Failure(FailureKind.CRASH, "the worker process ended"), Usage()), elapsed_s=1.0)
    assert (span.took_s, span.failure) == (None, "CRASH")
    assert span.attributes["queued_s"] == 1.0


def test_a_report_that_cannot_be_true_does_not_give_negative_times() -> None:
    span = described(Outcome(b"", None, Usage(wall_us=10**12, guest_us=10**12)), elapsed_s=0.1)
    assert span.attributes["queued_s"] == 0.0
