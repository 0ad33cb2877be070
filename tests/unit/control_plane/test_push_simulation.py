"""A seeded world: one control plane, nodes that are slow, refuse, vanish and come back; safe at every step.

The nodes are models, the control plane's side is the real state machine. Convergence is asked for at the end only.
"""

from dataclasses import dataclass, field
from random import Random

import pytest

from control_plane.push import (
    Acked,
    Disconnected,
    Fact,
    GoAway,
    Hello,
    LeaseRenewed,
    Nacked,
    Published,
    ResyncAsked,
    SendFull,
    SendLease,
    SendRevocation,
    Stage,
    StartTimer,
    State,
    Subscriber,
    TimerFired,
)

STEPS = 400
NODES = 5


@dataclass
class Node:
    """A model of a node: it works on one update at a time and takes the newest that it was sent."""

    holds: int = 0
    lease: int = 0
    subscriber: Subscriber | None = None
    inbox: list[SendFull | SendRevocation | SendLease] = field(default_factory=list)
    working_on: int = 0
    stage: int = 0
    timer: StartTimer | None = None
    unanswered: set[int] = field(default_factory=set)
    refused_for_good: set[int] = field(default_factory=set)


class World:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.generation = 1
        self.lease = 1
        self.poisoned: set[int] = set()
        self.nodes = [Node() for _ in range(NODES)]

    def deliver(self, node: Node, fact: Fact) -> None:
        if node.subscriber is None:
            return
        for effect in node.subscriber.receive(fact):
            match effect:
                case SendFull(generation=generation):
                    assert generation == self.generation_known_to(node), "only the newest is ever sent"
                    assert not node.unanswered or isinstance(fact, ResyncAsked), "one unacknowledged update at most"
                    assert generation not in node.refused_for_good or isinstance(fact, ResyncAsked), (
                        "no resend of what was refused for good"
                    )
                    node.unanswered.add(generation)
                    node.inbox = [effect]
                case SendRevocation(generation=generation):
                    assert isinstance(fact, Published)
                    assert fact.urgent
                    assert generation == fact.generation
                    node.unanswered = {generation}
                    node.inbox = [effect]  # the one slot: what was not sent yet is overtaken
                case SendLease(generation=generation):
                    assert generation == node.holds == self.generation, "leases only for what the node serves"
                    assert not node.unanswered
                    node.inbox.append(effect)
                case StartTimer():
                    node.timer = effect
                case GoAway():
                    assert not isinstance(fact, Acked | Nacked), "a correct node is never sent away for its answers"
                    self.disconnect(node)
                    return
        if node.subscriber.state is State.CURRENT:
            assert not node.unanswered
            assert node.holds == self.generation

    def generation_known_to(self, node: Node) -> int:
        assert node.subscriber is not None
        return node.subscriber.wanted

    def connect(self, node: Node) -> None:
        node.subscriber = Subscriber(wanted=self.generation, lease_version=self.lease)
        node.refused_for_good.clear()  # a new stream is a new conversation
        self.deliver(node, Hello(protocol_versions=frozenset({1}), generation=node.holds, lease_version=node.lease))

    def disconnect(self, node: Node) -> None:
        node.subscriber = None
        node.inbox.clear()
        node.unanswered.clear()
        node.working_on = 0
        node.timer = None

    def publish(self, *, urgent: bool) -> None:
        self.generation += 1
        self.lease += 1
        if not urgent and self.random.random() < 0.2:
            self.poisoned.add(self.generation)
        for node in self.nodes:
            self.deliver(node, Published(generation=self.generation, lease_version=self.lease, urgent=urgent))
            if urgent and node.subscriber is not None:
                first = node.inbox[0]
                assert isinstance(first, SendRevocation), "a revocation goes out at once, ahead of everything"

    def renew(self) -> None:
        self.lease += 1
        for node in self.nodes:
            self.deliver(node, LeaseRenewed(generation=self.generation, lease_version=self.lease))

    def work(self, node: Node, *, faults: bool) -> None:
        """Let a node take one message, or one stage."""
        if node.inbox:
            message = node.inbox.pop(0)
            if isinstance(message, SendLease):
                node.lease = max(node.lease, message.lease_version)
            else:
                node.working_on, node.stage = message.generation, 0
            return
        generation = node.working_on
        if not generation:
            return
        if generation in self.poisoned or (faults and self.random.random() < 0.15):
            final = generation in self.poisoned
            node.working_on = 0
            node.unanswered.discard(generation)
            if final:
                node.refused_for_good.add(generation)
            self.deliver(node, Nacked(generation=generation, retryable=not final))
            return
        stage = list(Stage)[node.stage]
        node.stage += 1
        if stage is Stage.ACTIVE:
            node.holds, node.working_on = generation, 0
            node.unanswered.discard(generation)
        self.deliver(node, Acked(generation=generation, stage=stage))

    def step(self) -> None:
        node = self.random.choice(self.nodes)
        match self.random.choices(
            ["work", "publish", "revoke", "renew", "connect", "disconnect", "resync", "timer"],
            [60, 4, 1, 4, 10, 3, 2, 10],
        )[0]:
            case "work":
                self.work(node, faults=True)
            case "publish":
                self.publish(urgent=False)
            case "revoke":
                self.publish(urgent=True)
            case "renew":
                self.renew()
            case "connect" if node.subscriber is None:
                self.connect(node)
            case "disconnect":
                self.deliver(node, Disconnected())
                self.disconnect(node)
            case "resync" if node.subscriber is not None and not node.inbox:
                node.working_on = 0
                node.unanswered.clear()
                self.deliver(node, ResyncAsked())
            case "timer" if node.timer is not None:
                fired, node.timer = node.timer, None
                self.deliver(node, TimerFired(timer=fired.timer, ticket=fired.ticket))
            case _:
                pass

    def settle(self) -> None:
        """No more faults: a good generation is published and everyone is given time."""
        self.publish(urgent=True)
        for _ in range(20 * NODES):
            for node in self.nodes:
                if node.subscriber is None:
                    self.connect(node)
                self.work(node, faults=False)


@pytest.mark.parametrize("seed", range(60))
def test_safe_at_every_step_and_converging_in_the_end(seed: int) -> None:
    world = World(seed)
    for _ in range(STEPS):
        world.step()
    world.settle()
    for node in world.nodes:
        assert node.holds == world.generation
        assert node.subscriber is not None
        assert node.subscriber.state is State.CURRENT
