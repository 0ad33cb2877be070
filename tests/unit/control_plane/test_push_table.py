"""Every row of the table in `control_plane.push` has a case here, and every case a row."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from control_plane import push
from control_plane.push import (
    Acked,
    Disconnected,
    Draining,
    Effect,
    Fact,
    GoAway,
    Hello,
    LeaseRenewed,
    Nacked,
    Parting,
    Published,
    Reported,
    ResyncAsked,
    SendFull,
    SendLease,
    SendRevocation,
    Stage,
    StartTimer,
    State,
    Subscriber,
    Timer,
    TimerFired,
)


def hello(generation: int = 0, lease: int = 0, versions: frozenset[int] = frozenset({1})) -> Hello:
    return Hello(protocol_versions=versions, generation=generation, lease_version=lease)


def published(generation: int, *, urgent: bool = False) -> Published:
    return Published(generation=generation, lease_version=generation * 10, urgent=urgent)


def acked(generation: int, stage: Stage = Stage.ACTIVE) -> Acked:
    return Acked(generation=generation, stage=stage)


def nacked(generation: int, *, retryable: bool = False) -> Nacked:
    return Nacked(generation=generation, retryable=retryable)


def greeting() -> Subscriber:
    """Generation 5 is published under lease 50."""
    return Subscriber(wanted=5, lease_version=50)


def after(subscriber: Subscriber, *facts: Fact) -> Subscriber:
    for fact in facts:
        subscriber.receive(fact)
    return subscriber


def updating() -> Subscriber:
    return after(greeting(), hello(4, 40))


def current() -> Subscriber:
    return after(updating(), acked(5))


def refused() -> Subscriber:
    return after(updating(), nacked(5))


def refused_for_now() -> Subscriber:
    return after(updating(), nacked(5, retryable=True))


def timer(ticket: int) -> StartTimer:
    return StartTimer(timer=Timer.ACK, ticket=ticket)


def full(generation: int, ticket: int) -> list[Effect]:
    return [SendFull(generation=generation), timer(ticket)]


@dataclass(frozen=True)
class Case:
    start: Callable[[], Subscriber]
    fact: Fact
    next: State
    effects: list[Effect]


LEASE_51 = LeaseRenewed(generation=5, lease_version=51)
GREETING, CURRENT, UPDATING, REFUSED, GONE = State

CASES: dict[str, list[Case]] = {
    "GREETING Hello, no common protocol version": [
        Case(greeting, hello(versions=frozenset({2, 99})), GONE, [GoAway(reason=Parting.PROTOCOL_VERSION)]),
        Case(greeting, hello(versions=frozenset()), GONE, [GoAway(reason=Parting.PROTOCOL_VERSION)]),
    ],
    "GREETING Hello, nothing published yet": [
        Case(Subscriber, hello(), CURRENT, []),
        Case(Subscriber, hello(generation=7), CURRENT, []),
    ],
    "GREETING Hello, holds the wanted generation": [
        Case(greeting, hello(5, 50), CURRENT, []),
        Case(greeting, hello(5, 49), CURRENT, [SendLease(generation=5, lease_version=50)]),
        Case(greeting, hello(5, 60), CURRENT, []),
    ],
    "GREETING Hello, holds another generation": [
        Case(greeting, hello(), UPDATING, full(5, 1)),
        Case(greeting, hello(4, 40), UPDATING, full(5, 1)),
        Case(greeting, hello(6, 60), UPDATING, full(5, 1)),
    ],
    "GREETING Published, LeaseRenewed": [
        Case(greeting, published(6), GREETING, []),
        Case(greeting, published(6, urgent=True), GREETING, []),
        Case(greeting, LEASE_51, GREETING, []),
    ],
    "GREETING Acked, Nacked, Reported, ResyncAsked": [
        Case(greeting, fact, GONE, [GoAway(reason=Parting.HELLO_EXPECTED)])
        for fact in (acked(5), nacked(5), Reported(), ResyncAsked())
    ],
    "CURRENT Published newer": [
        Case(current, published(6), UPDATING, full(6, 2)),
        Case(current, published(6, urgent=True), UPDATING, [SendRevocation(generation=6), timer(2)]),
    ],
    "CURRENT LeaseRenewed": [Case(current, LEASE_51, CURRENT, [SendLease(generation=5, lease_version=51)])],
    "CURRENT ResyncAsked, first for this generation": [Case(current, ResyncAsked(), UPDATING, full(5, 2))],
    "CURRENT Nacked its generation (a lease)": [
        Case(current, nacked(5), CURRENT, []),
        Case(current, nacked(5, retryable=True), CURRENT, []),
        Case(lambda: after(greeting(), hello(5, 50)), nacked(5), CURRENT, []),
    ],
    "UPDATING Published newer": [Case(updating, published(6), UPDATING, [])],
    "UPDATING Published newer and urgent": [
        Case(updating, published(6, urgent=True), UPDATING, [SendRevocation(generation=6), timer(2)]),
        Case(
            lambda: after(updating(), published(6)),
            published(7, urgent=True),
            UPDATING,
            [SendRevocation(generation=7), timer(2)],
        ),
    ],
    "UPDATING LeaseRenewed": [Case(updating, LEASE_51, UPDATING, [])],
    "UPDATING Acked sent VERIFIED or STAGED": [
        Case(updating, acked(5, Stage.VERIFIED), UPDATING, [timer(2)]),
        Case(updating, acked(5, Stage.STAGED), UPDATING, [timer(2)]),
    ],
    "UPDATING Acked sent ACTIVE, nothing newer wanted": [
        Case(updating, acked(5), CURRENT, []),
        Case(lambda: after(updating(), LEASE_51), acked(5), CURRENT, [SendLease(generation=5, lease_version=51)]),
    ],
    "UPDATING Acked sent ACTIVE, newer wanted": [
        Case(lambda: after(updating(), published(6), published(7)), acked(5), UPDATING, full(7, 2)),
    ],
    "UPDATING Nacked sent, newer wanted": [
        Case(lambda: after(updating(), published(6)), nacked(5), UPDATING, full(6, 2)),
        Case(lambda: after(updating(), published(6)), nacked(5, retryable=True), UPDATING, full(6, 2)),
    ],
    "UPDATING Nacked sent, retryable": [
        Case(updating, nacked(5, retryable=True), REFUSED, [StartTimer(timer=Timer.RETRY, ticket=2, after_s=1.0)]),
        Case(
            lambda: after(refused_for_now(), TimerFired(timer=Timer.RETRY, ticket=2)),
            nacked(5, retryable=True),
            REFUSED,
            [StartTimer(timer=Timer.RETRY, ticket=4, after_s=2.0)],
        ),
    ],
    "UPDATING Nacked sent, final": [Case(updating, nacked(5), REFUSED, [])],
    "UPDATING ResyncAsked, first for this generation": [
        Case(updating, ResyncAsked(), UPDATING, full(5, 2)),
        Case(lambda: after(updating(), published(6)), ResyncAsked(), UPDATING, full(6, 2)),
    ],
    "UPDATING ResyncAsked again": [Case(lambda: after(updating(), ResyncAsked()), ResyncAsked(), REFUSED, [])],
    "UPDATING TimerFired(ACK), the latest one": [
        Case(updating, TimerFired(timer=Timer.ACK, ticket=1), GONE, [GoAway(reason=Parting.ACK_OVERDUE)]),
    ],
    "REFUSED Published newer": [
        Case(refused, published(6), UPDATING, full(6, 2)),
        Case(refused, published(6, urgent=True), UPDATING, [SendRevocation(generation=6), timer(2)]),
    ],
    "REFUSED LeaseRenewed": [Case(refused, LEASE_51, REFUSED, [])],
    "REFUSED TimerFired(RETRY), the latest one": [
        Case(refused_for_now, TimerFired(timer=Timer.RETRY, ticket=2), UPDATING, full(5, 3)),
    ],
    "REFUSED Acked refused ACTIVE": [
        Case(refused, acked(5), CURRENT, []),
        Case(lambda: after(refused(), LEASE_51), acked(5), CURRENT, [SendLease(generation=5, lease_version=51)]),
    ],
    "REFUSED ResyncAsked, first for this generation": [Case(refused, ResyncAsked(), UPDATING, full(5, 2))],
    "REFUSED ResyncAsked again": [
        Case(lambda: after(current(), ResyncAsked(), nacked(5)), ResyncAsked(), REFUSED, []),
    ],
    "any Hello again": [
        Case(start, hello(5, 50), GONE, [GoAway(reason=Parting.HELLO_REPEATED)])
        for start in (current, updating, refused)
    ],
    "any Acked or Nacked a generation never sent": [
        Case(start, fact, GONE, [GoAway(reason=Parting.UNKNOWN_GENERATION)])
        for start in (current, updating, refused)
        for fact in (acked(6, Stage.VERIFIED), nacked(6))
    ],
    "any Draining": [
        Case(start, Draining(reason=Parting.SHUTTING_DOWN), GONE, [GoAway(reason=Parting.SHUTTING_DOWN)])
        for start in (greeting, current, updating, refused)
    ],
    "any Disconnected": [Case(start, Disconnected(), GONE, []) for start in (greeting, current, updating, refused)],
    "GONE anything": [
        Case(lambda: after(current(), Disconnected()), fact, GONE, [])
        for fact in (
            hello(),
            published(6),
            published(7, urgent=True),
            LEASE_51,
            acked(5),
            nacked(5),
            Reported(),
            ResyncAsked(),
            TimerFired(timer=Timer.ACK, ticket=1),
            Draining(reason=Parting.SHUTTING_DOWN),
            Disconnected(),
        )
    ],
}

UNCHANGED: list[tuple[Callable[[], Subscriber], Fact]] = [
    *((start, fact) for start in (current, updating, refused) for fact in (Reported(), published(5), published(4))),
    *((start, LeaseRenewed(generation=5, lease_version=50)) for start in (current, updating, refused)),
    *((start, LeaseRenewed(generation=4, lease_version=99)) for start in (current, updating, refused)),
    *((start, acked(4)) for start in (current, updating, refused)),
    *((start, nacked(4)) for start in (current, updating, refused)),
    (current, acked(5)),
    (current, acked(5, Stage.VERIFIED)),
    (refused, acked(5, Stage.STAGED)),
    (refused, nacked(5)),
    (refused, nacked(5, retryable=True)),
    (updating, TimerFired(timer=Timer.ACK, ticket=0)),
    (updating, TimerFired(timer=Timer.RETRY, ticket=1)),
    (current, TimerFired(timer=Timer.ACK, ticket=1)),
    (lambda: after(updating(), acked(5, Stage.VERIFIED)), TimerFired(timer=Timer.ACK, ticket=1)),
    (lambda: after(updating(), published(6, urgent=True)), acked(5)),
    (lambda: after(updating(), published(6, urgent=True)), nacked(5)),
    (lambda: after(refused_for_now(), published(6)), TimerFired(timer=Timer.RETRY, ticket=2)),
    (lambda: after(Subscriber(), hello()), ResyncAsked()),
]


def test_every_row_has_a_case_and_every_case_a_row() -> None:
    lines = (push.__doc__ or "").split("State     Fact", 1)[1].split("\n\n", 1)[0].splitlines()[1:]
    rows = [f"{line[:10].strip()} {line[10:54].strip()}" for line in lines]
    assert sorted(rows) == sorted(CASES)


@pytest.mark.parametrize(
    ("row", "case"), [pytest.param(row, case, id=row) for row, cases in CASES.items() for case in cases]
)
def test_transition(row: str, case: Case) -> None:
    subscriber = case.start()
    origin = row.split(maxsplit=1)[0]
    assert origin in {"any", subscriber.state}
    assert subscriber.receive(case.fact) == case.effects
    assert subscriber.state is case.next


@pytest.mark.parametrize(("start", "fact"), UNCHANGED)
def test_everything_else_changes_nothing(start: Callable[[], Subscriber], fact: Fact) -> None:
    subscriber = start()
    before = subscriber.state
    assert subscriber.receive(fact) == []
    assert subscriber.state is before


def test_back_off_doubles_to_a_minute_and_starts_anew_with_the_next_generation() -> None:
    subscriber = updating()
    waits: list[float | None] = []
    for _ in range(9):
        (effect,) = subscriber.receive(nacked(5, retryable=True))
        assert isinstance(effect, StartTimer)
        waits.append(effect.after_s)
        assert SendFull(generation=5) in subscriber.receive(TimerFired(timer=Timer.RETRY, ticket=effect.ticket))
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    subscriber.receive(published(6))
    subscriber.receive(nacked(5))
    assert subscriber.receive(nacked(6, retryable=True)) == [
        StartTimer(timer=Timer.RETRY, ticket=subscriber._ticket, after_s=1.0)
    ]


def test_resync_is_answered_again_after_the_generation_became_active() -> None:
    subscriber = after(current(), ResyncAsked(), acked(5))
    assert subscriber.receive(ResyncAsked())[0] == SendFull(generation=5)


def test_reconnects_are_spread_over_the_window() -> None:
    delays = [push.reconnect_after_s(f"node-{number}", window_s=10.0) for number in range(1000)]
    tenths = [sum(1 for each in delays if tenth <= each < tenth + 1) for tenth in range(10)]
    assert all(0 <= each < 10 for each in delays)
    assert min(tenths) > 60
    assert delays[0] == push.reconnect_after_s("node-0", window_s=10.0)


def test_holders_counts_the_streams_that_serve_a_generation() -> None:
    streams = [current(), updating(), refused(), after(current(), Disconnected())]
    assert push.holders(streams, generation=5) == 1
    assert push.holders(streams, generation=4) == 2
