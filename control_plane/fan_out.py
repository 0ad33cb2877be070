"""Carries the decisions of `control_plane.push` out to every subscribed node: mailboxes, timers, debounce, fleet view.

Runs in the event loop's thread; nothing here blocks or awaits but `Stream.next_message`.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum, unique
from typing import TypeAlias

from control_plane import push
from control_plane.fleet import NodeView, Refusal
from control_plane.library import Library
from control_plane.publication import Published, Update
from control_plane.push import Parting, State, Subscriber
from service.logs import get_logger
from service.telemetry import NOT_BEGUN, PUSH_SECONDS, PUSHES, SUBSCRIBERS, Field, SpanName, Telemetry, continued
from templates.plan import Plan
from templates.revocations import Revocations

GENERATIONS_SERVED = 8
"""Blobs of this many newest generations are served: a node may still fetch for one that was overtaken."""

log = get_logger("push")


@unique
class Event(StrEnum):
    NODE_SUBSCRIBED = "node_subscribed"
    NODE_LEFT = "node_left"
    NODE_REACHED = "node_reached"
    NODE_REFUSED = "node_refused"
    NODE_AHEAD = "node_ahead"


@dataclass(frozen=True, slots=True, kw_only=True)
class PushTimes:
    """``debounce_s`` gathers publications; a node that says nothing for ``ack_timeout_s`` is sent away."""

    debounce_s: float = 0.075
    ack_timeout_s: float = 900.0
    reconnect_window_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FullMessage:
    """``traceparent`` is that of this one push."""

    update: Update
    urgent: bool
    traceparent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseMessage:
    generation: int
    timestamp: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PartingMessage:
    """The last one of a stream."""

    reason: Parting
    reconnect_after_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointsMessage:
    """Checkpoints of the audit log that follow the one which the node holds."""

    documents: tuple[bytes, ...]


Message: TypeAlias = FullMessage | LeaseMessage | PartingMessage | CheckpointsMessage


class Stream:
    """One node's stream. Slots, in each of which the latest message wins; updates leave before leases."""

    def __init__(self, node: str, subscriber: Subscriber) -> None:
        self.node = node
        self.subscriber = subscriber
        self.sent_at = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self.push = NOT_BEGUN
        self._update: FullMessage | None = None
        self._lease: LeaseMessage | None = None
        self._parting: PartingMessage | None = None
        self._checkpoints: CheckpointsMessage | None = None
        self._closed = False
        self._filled = asyncio.Event()

    def put(self, message: Message) -> None:
        match message:
            case FullMessage():
                self._update, self._lease = message, None
            case LeaseMessage():
                self._lease = message
            case CheckpointsMessage():
                self._checkpoints = message
            case PartingMessage():
                self._update = self._lease = None
                self._parting = message
        self._filled.set()

    def close(self) -> None:
        """End the stream without a word: the peer has gone."""
        self._closed = True
        self._filled.set()

    async def next_message(self) -> Message | None:
        """Wait for what is to be sent next; None after the last."""
        while True:
            if self._closed:
                return None
            if self._update is not None:
                message, self._update = self._update, None
                return message
            if self._lease is not None:
                lease, self._lease = self._lease, None
                return lease
            if self._parting is not None:
                self._closed = True
                return self._parting
            if self._checkpoints is not None:
                checkpoints, self._checkpoints = self._checkpoints, None
                return checkpoints
            self._filled.clear()
            await self._filled.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Served:
    plan: Plan
    library: Library


class FanOut:
    """Hears of publications from `control_plane.publisher.Publisher` and of nodes from the gRPC adapter."""

    def __init__(
        self,
        *,
        times: PushTimes,
        telemetry: Telemetry,
        clock: Callable[[], datetime],
        known_nodes: Iterable[NodeView] = (),
    ) -> None:
        self._times = times
        self._telemetry = telemetry
        self._clock = clock
        self._views = {view.id: view for view in known_nodes}
        self._changed: set[str] = set()
        self._streams: dict[str, Stream] = {}
        self._newest: Update | None = None
        self._announced: Update | None = None
        self._debounce: asyncio.TimerHandle | None = None
        self._served: dict[int, _Served] = {}
        self._revocations = Revocations()
        telemetry.measure(SUBSCRIBERS, lambda: float(len(self._streams)))

    # What the publisher says

    def published(self, published: Published, update: Update, *, urgent: bool) -> None:
        """Tell every node: at once if urgent, otherwise together with what is published within the debounce."""
        self._newest = update
        self._revocations = published.revocations
        self._served[update.generation] = _Served(plan=published.material.plan, library=published.material.library)
        for old in [number for number in self._served if number <= update.generation - GENERATIONS_SERVED]:
            del self._served[old]
        if urgent or not self._streams:
            self._announce(urgent=urgent)
        elif self._debounce is None:
            loop = asyncio.get_running_loop()
            self._debounce = loop.call_later(self._times.debounce_s, lambda: self._announce(urgent=False))

    def lease_renewed(self, published: Published, update: Update) -> None:
        if self._announced is None or self._announced.generation != published.number:
            # It goes out with its generation, when the debounce is over.
            self._newest = replace(update, traceparent=self._newest.traceparent if self._newest else "")
            return
        self._newest = self._announced = update
        fact = push.LeaseRenewed(generation=update.generation, lease_version=update.lease_version)
        for stream in list(self._streams.values()):
            self.deliver(stream, fact)

    def _announce(self, *, urgent: bool) -> None:
        if self._debounce is not None:
            self._debounce.cancel()
            self._debounce = None
        update = self._newest
        if update is None:
            return
        self._announced = update
        fact = push.Published(generation=update.generation, lease_version=update.lease_version, urgent=urgent)
        for stream in list(self._streams.values()):
            self.deliver(stream, fact)

    # What nodes say

    def join(self, node: str) -> Stream:
        """Begin a stream; an older one of the same node ends."""
        replaced = self._streams.get(node)
        if replaced is not None:
            self.deliver(replaced, push.Draining(reason=Parting.REPLACED))
        announced = self._announced
        subscriber = (
            Subscriber(wanted=announced.generation, lease_version=announced.lease_version)
            if announced
            else Subscriber()
        )
        stream = self._streams[node] = Stream(node, subscriber)
        return stream

    def greeted(self, stream: Stream, hello: push.Hello, *, version: str, wasmtime_version: str) -> None:
        view = self._view(stream.node).greeted(
            now=self._clock(), generation=hello.generation, version=version, wasmtime_version=wasmtime_version
        )
        self._note(view)
        log.info(Event.NODE_SUBSCRIBED, node=stream.node, generation=hello.generation, version=view.version)
        if self._announced is not None and hello.generation > self._announced.generation:
            log.warning(Event.NODE_AHEAD, node=stream.node, generation=hello.generation)
        self.deliver(stream, hello)

    def acked(self, stream: Stream, fact: push.Acked) -> None:
        known = fact.generation <= max(stream.subscriber.sent, stream.subscriber.held)
        if known and stream.subscriber.state is not State.GREETING:
            self._note(self._view(stream.node).acked(now=self._clock(), generation=fact.generation, stage=fact.stage))
            self._telemetry.count(PUSHES, fact.stage.lower())
            if fact.generation == stream.subscriber.sent:
                stream.push.span.set(Field.STAGE, str(fact.stage))
            if fact.stage is push.Stage.ACTIVE and fact.generation == stream.subscriber.sent:
                took_s = time.perf_counter() - stream.sent_at
                self._telemetry.observe(PUSH_SECONDS, took_s)
                with continued(stream.push.traceparent):
                    log.info(Event.NODE_REACHED, node=stream.node, generation=fact.generation, took_s=round(took_s, 4))
                _end_push(stream)
        self.deliver(stream, fact)

    def nacked(self, stream: Stream, refusal: Refusal) -> None:
        fact = push.Nacked(generation=refusal.generation, retryable=refusal.retryable)
        known = fact.generation <= max(stream.subscriber.sent, stream.subscriber.held)
        if known and stream.subscriber.state is not State.GREETING:
            view = self._view(stream.node).nacked(now=self._clock(), refusal=refusal)
            self._note(view)
            self._telemetry.count(PUSHES, "refused")
            of_push = refusal.generation == stream.subscriber.sent
            if view.refusal is not None:
                with continued(stream.push.traceparent if of_push else ""):
                    log.warning(
                        Event.NODE_REFUSED,
                        node=stream.node,
                        generation=refusal.generation,
                        phase=view.refusal.phase,
                        template=view.refusal.template,
                        reason=view.refusal.reason,
                        error=view.refusal.message,
                    )
                if of_push:
                    _end_push(stream, failure=view.refusal.reason)
        self.deliver(stream, fact)

    def reported(
        self,
        stream: Stream,
        *,
        in_flight: int,
        agents: int,
        invocations: int,
        failures: int,
        state: str,
        isolation: str,
    ) -> None:
        self._note(
            self._view(stream.node).reported(
                now=self._clock(),
                in_flight=in_flight,
                agents=agents,
                invocations=invocations,
                failures=failures,
                state=state,
                isolation=isolation,
            )
        )
        self.deliver(stream, push.Reported())

    def left(self, stream: Stream) -> None:
        """Forget a stream that ended, however it ended."""
        self.deliver(stream, push.Disconnected())
        _end_push(stream, failure="DISCONNECTED")
        if stream.timer is not None:
            stream.timer.cancel()
        stream.close()
        if self._streams.get(stream.node) is stream:
            del self._streams[stream.node]
            self._note(self._view(stream.node).left(now=self._clock()))
            log.info(Event.NODE_LEFT, node=stream.node)

    def drain(self) -> None:
        """Say goodbye to every node, and when to come back."""
        for stream in list(self._streams.values()):
            self.deliver(stream, push.Draining(reason=Parting.SHUTTING_DOWN))

    def deliver(self, stream: Stream, fact: push.Fact) -> None:
        """Let the state machine judge one fact, and carry out what it says."""
        for effect in stream.subscriber.receive(fact):
            self._carry_out(stream, effect)

    def _carry_out(self, stream: Stream, effect: push.Effect) -> None:
        update = self._announced
        match effect:
            case push.SendFull() | push.SendRevocation() if update is not None:
                _end_push(stream, failure="OVERTAKEN")
                stream.sent_at = time.perf_counter()
                stream.push = self._telemetry.begin(
                    SpanName.PUSH,
                    {Field.NODE: stream.node, Field.GENERATION: update.generation},
                    parent=update.traceparent,
                )
                urgent = isinstance(effect, push.SendRevocation)
                stream.put(FullMessage(update=update, urgent=urgent, traceparent=stream.push.traceparent))
            case push.SendLease(generation=generation) if update is not None:
                stream.put(LeaseMessage(generation=generation, timestamp=update.timestamp))
            case push.GoAway(reason=reason):
                after_s = push.reconnect_after_s(stream.node, window_s=self._times.reconnect_window_s)
                stream.put(PartingMessage(reason=reason, reconnect_after_s=after_s))
            case push.StartTimer(timer=timer, ticket=ticket, after_s=delay_s):
                if stream.timer is not None:
                    stream.timer.cancel()
                fact = push.TimerFired(timer=timer, ticket=ticket)
                stream.timer = asyncio.get_running_loop().call_later(
                    self._times.ack_timeout_s if delay_s is None else delay_s, lambda: self.deliver(stream, fact)
                )
            case _:
                pass

    # What others want to know

    def blobs_for(self, node: str) -> Mapping[str, int]:
        """Return digest → length of everything that ``node`` may fetch: the code of its plan, nothing revoked."""
        allowed: dict[str, int] = {}
        if node in self._revocations.nodes:
            return allowed
        for served in self._served.values():
            for entry in served.plan.for_node(node):
                approved = served.library.get(entry.template)
                if approved is not None and approved.resolved.code and not approved.is_revoked(self._revocations):
                    allowed.update((blob.sha256, blob.length) for blob in approved.resolved.code.blobs())
        return allowed

    def is_revoked(self, node: str) -> bool:
        return node in self._revocations.nodes

    def nodes(self) -> Sequence[NodeView]:
        """Return every node ever seen, ordered by id."""
        return [self._views[node] for node in sorted(self._views)]

    def reach(self, generation: int) -> tuple[int, int]:
        """Return how many connected nodes serve ``generation``, and how many are connected."""
        subscribers = [stream.subscriber for stream in self._streams.values()]
        return push.holders(subscribers, generation=generation), len(subscribers)

    def take_changed(self) -> list[NodeView]:
        """Return the views that changed since the last call, to be stored."""
        changed = [self._views[node] for node in sorted(self._changed)]
        self._changed.clear()
        return changed

    def _view(self, node: str) -> NodeView:
        return self._views.get(node) or NodeView(id=node, seen_at=self._clock(), connected=True)

    def _note(self, view: NodeView) -> None:
        self._views[view.id] = view
        self._changed.add(view.id)


def _end_push(stream: Stream, *, failure: str = "") -> None:
    """End the span of the update that is under way on ``stream``, if there is one."""
    if failure:
        stream.push.span.fail(failure)
    stream.push.span.end()
    stream.push = NOT_BEGUN
