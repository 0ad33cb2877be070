"""What the control plane says to one subscribed node, and when: the state machine of the push protocol (ADR 5).

Facts go in, effects come out; nothing here awaits, reads a clock or knows gRPC. One `Subscriber` exists per stream.
``wanted`` is its mailbox: one slot, the latest generation wins. ``sent`` is the one update that may be unacknowledged.

State     Fact                                        Next      Effects
GREETING  Hello, no common protocol version           GONE      GoAway(PROTOCOL_VERSION)
GREETING  Hello, nothing published yet                CURRENT   -
GREETING  Hello, holds the wanted generation          CURRENT   SendLease if its lease is older
GREETING  Hello, holds another generation             UPDATING  SendFull, StartTimer(ACK)
GREETING  Published, LeaseRenewed                     GREETING  - (remembered)
GREETING  Acked, Nacked, Reported, ResyncAsked        GONE      GoAway(HELLO_EXPECTED)
CURRENT   Published newer                             UPDATING  SendFull (urgent: SendRevocation), StartTimer(ACK)
CURRENT   LeaseRenewed                                CURRENT   SendLease
CURRENT   ResyncAsked, first for this generation      UPDATING  SendFull, StartTimer(ACK)
CURRENT   Nacked its generation (a lease)             CURRENT   -
UPDATING  Published newer                             UPDATING  - (the slot holds it)
UPDATING  Published newer and urgent                  UPDATING  SendRevocation, StartTimer(ACK)
UPDATING  LeaseRenewed                                UPDATING  - (remembered)
UPDATING  Acked sent VERIFIED or STAGED               UPDATING  StartTimer(ACK)
UPDATING  Acked sent ACTIVE, nothing newer wanted     CURRENT   SendLease if a newer one was signed meanwhile
UPDATING  Acked sent ACTIVE, newer wanted             UPDATING  SendFull, StartTimer(ACK)
UPDATING  Nacked sent, newer wanted                   UPDATING  SendFull, StartTimer(ACK)
UPDATING  Nacked sent, retryable                      REFUSED   StartTimer(RETRY) with back-off
UPDATING  Nacked sent, final                          REFUSED   -
UPDATING  ResyncAsked, first for this generation      UPDATING  SendFull, StartTimer(ACK)
UPDATING  ResyncAsked again                           REFUSED   -
UPDATING  TimerFired(ACK), the latest one             GONE      GoAway(ACK_OVERDUE)
REFUSED   Published newer                             UPDATING  SendFull (urgent: SendRevocation), StartTimer(ACK)
REFUSED   LeaseRenewed                                REFUSED   - (the node does not serve that generation)
REFUSED   TimerFired(RETRY), the latest one           UPDATING  SendFull, StartTimer(ACK)
REFUSED   Acked refused ACTIVE                        CURRENT   SendLease if a newer one was signed meanwhile
REFUSED   ResyncAsked, first for this generation      UPDATING  SendFull, StartTimer(ACK)
REFUSED   ResyncAsked again                           REFUSED   -
any       Hello again                                 GONE      GoAway(HELLO_REPEATED)
any       Acked or Nacked a generation never sent     GONE      GoAway(UNKNOWN_GENERATION)
any       Draining                                    GONE      GoAway(its reason)
any       Disconnected                                GONE      -
GONE      anything                                    GONE      -

Everything else (an older generation, a duplicate, a timer that was overtaken) changes nothing and has no effect.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import TypeAlias, assert_never

PROTOCOL_VERSIONS = frozenset({1})
RETRY_FIRST_S = 1.0
RETRY_MAX_S = 60.0


@unique
class State(StrEnum):
    GREETING = "GREETING"
    CURRENT = "CURRENT"
    UPDATING = "UPDATING"
    REFUSED = "REFUSED"
    GONE = "GONE"


@unique
class Stage(StrEnum):
    """How far a node got with a generation; each includes the ones before it."""

    VERIFIED = "VERIFIED"
    STAGED = "STAGED"
    ACTIVE = "ACTIVE"


@unique
class Parting(StrEnum):
    """Why a stream is ended; the reason of its GoAway."""

    ACK_OVERDUE = "ACK_OVERDUE"
    HELLO_EXPECTED = "HELLO_EXPECTED"
    HELLO_REPEATED = "HELLO_REPEATED"
    PROTOCOL_VERSION = "PROTOCOL_VERSION"
    REPLACED = "REPLACED"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    UNKNOWN_GENERATION = "UNKNOWN_GENERATION"


@unique
class Timer(StrEnum):
    ACK = "ACK"
    RETRY = "RETRY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The node introduced itself and said what it serves; generation 0 is nothing."""

    protocol_versions: frozenset[int]
    generation: int
    lease_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A generation is durable and encoded. An urgent one carries a revocation."""

    generation: int
    lease_version: int
    urgent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRenewed:
    """A newer lease over the newest generation is durable."""

    generation: int
    lease_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Acked:
    generation: int
    stage: Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Nacked:
    """The node refused a generation. Reason and place are kept in `control_plane.fleet`; they decide nothing here."""

    generation: int
    retryable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """The node sent figures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResyncAsked:
    """The node could not make sense of what it got and wants the full state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerFired:
    timer: Timer
    ticket: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining:
    """This stream is to end: the process stops, or a newer stream of the same node took its place."""

    reason: Parting


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnected:
    """The stream ended or broke."""


Fact: TypeAlias = (
    Hello | Published | LeaseRenewed | Acked | Nacked | Reported | ResyncAsked | TimerFired | Draining | Disconnected
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SendFull:
    """Send the bundle of ``generation`` with its newest lease."""

    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SendRevocation:
    """Send the bundle of ``generation`` ahead of everything that still waits to be sent."""

    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SendLease:
    generation: int
    lease_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GoAway:
    """Say ``reason`` and end the stream."""

    reason: Parting


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTimer:
    """Report `TimerFired` with this ticket after ``after_s``; None means the caller's acknowledgement timeout.

    Starting a timer overtakes every earlier one: their tickets are no longer the latest.
    """

    timer: Timer
    ticket: int
    after_s: float | None = None


Effect: TypeAlias = SendFull | SendRevocation | SendLease | GoAway | StartTimer


class Subscriber:
    """One node's stream. Call `receive` with the facts in the order of their happening; carry out effects in theirs."""

    def __init__(self, *, wanted: int = 0, lease_version: int = 0) -> None:
        """Begin before Hello, with what is published at that moment."""
        self.state = State.GREETING
        self.wanted = wanted
        self.wanted_lease = lease_version
        self.sent = 0
        self.sent_lease = 0
        self.held = 0
        self._resynced = 0
        self._attempts = 0
        self._ticket = 0

    def receive(self, fact: Fact) -> list[Effect]:  # noqa: PLR0911 - one return per row of the table
        """Apply one fact and return the effects to carry out, in order."""
        if self.state is State.GONE:
            return []
        match fact:
            case Published() | LeaseRenewed():
                return self._offered(fact)
            case Disconnected():
                self.state = State.GONE
                return []
            case Draining(reason=reason):
                return self._part(reason)
            case TimerFired():
                return self._timer_fired(fact)
            case Hello():
                return self._greeted(fact)
            case Acked() | Nacked() | Reported() | ResyncAsked():
                if self.state is State.GREETING:
                    return self._part(Parting.HELLO_EXPECTED)
                return self._answered(fact)
            case _ as never:
                assert_never(never)

    def _offered(self, fact: Published | LeaseRenewed) -> list[Effect]:
        match fact:
            case Published(generation=generation, lease_version=lease, urgent=urgent) if generation > self.wanted:
                self.wanted = generation
                self.wanted_lease = lease
                if self.state in {State.CURRENT, State.REFUSED}:
                    self._attempts = 0
                    return self._send(urgent=urgent)
                return self._send(urgent=True) if urgent and self.state is State.UPDATING else []
            case LeaseRenewed(generation=generation, lease_version=lease) if (
                generation == self.wanted and lease > self.wanted_lease
            ):
                self.wanted_lease = lease
                return self._lease_if_newer() if self.state is State.CURRENT else []
            case _:
                return []

    def _greeted(self, hello: Hello) -> list[Effect]:
        if self.state is not State.GREETING:
            return self._part(Parting.HELLO_REPEATED)
        if not hello.protocol_versions & PROTOCOL_VERSIONS:
            return self._part(Parting.PROTOCOL_VERSION)
        self.held = hello.generation
        if self.wanted == 0:
            self.state = State.CURRENT
            return []
        if hello.generation != self.wanted:
            return self._send()
        self.state = State.CURRENT
        self.sent_lease = hello.lease_version
        return self._lease_if_newer()

    def _answered(self, fact: Acked | Nacked | Reported | ResyncAsked) -> list[Effect]:
        match fact:
            case Acked(generation=generation) | Nacked(generation=generation) if generation > max(self.sent, self.held):
                return self._part(Parting.UNKNOWN_GENERATION)
            case Acked(generation=generation, stage=stage) if generation == self.sent:
                return self._acked(stage)
            case Nacked(generation=generation, retryable=retryable) if (
                generation == self.sent and self.state is State.UPDATING
            ):
                return self._nacked(retryable=retryable)
            case ResyncAsked():
                return self._resync()
            case _:
                return []

    def _acked(self, stage: Stage) -> list[Effect]:
        if self.state not in {State.UPDATING, State.REFUSED}:
            return []
        if stage is not Stage.ACTIVE:
            return [self._start(Timer.ACK)] if self.state is State.UPDATING else []
        self.held = self.sent
        self._attempts = self._resynced = 0
        if self.wanted > self.sent:
            return self._send()
        self.state = State.CURRENT
        return self._lease_if_newer()

    def _nacked(self, *, retryable: bool) -> list[Effect]:
        if self.wanted > self.sent:
            self._attempts = 0
            return self._send()
        self.state = State.REFUSED
        if not retryable:
            return []
        after_s = min(RETRY_FIRST_S * 2**self._attempts, RETRY_MAX_S)
        self._attempts = min(self._attempts + 1, 16)
        return [self._start(Timer.RETRY, after_s=after_s)]

    def _resync(self) -> list[Effect]:
        if self.wanted == 0:
            return []
        if self._resynced == self.wanted:
            self.state = State.REFUSED
            return []
        self._resynced = self.wanted
        return self._send()

    def _timer_fired(self, fired: TimerFired) -> list[Effect]:
        if fired.ticket != self._ticket:
            return []
        match fired.timer, self.state:
            case Timer.ACK, State.UPDATING:
                return self._part(Parting.ACK_OVERDUE)
            case Timer.RETRY, State.REFUSED:
                return self._send()
            case _:
                return []

    def _send(self, *, urgent: bool = False) -> list[Effect]:
        self.state = State.UPDATING
        self.sent = self.wanted
        self.sent_lease = self.wanted_lease
        update = SendRevocation(generation=self.sent) if urgent else SendFull(generation=self.sent)
        return [update, self._start(Timer.ACK)]

    def _lease_if_newer(self) -> list[Effect]:
        if self.wanted_lease <= self.sent_lease:
            return []
        self.sent_lease = self.wanted_lease
        return [SendLease(generation=self.wanted, lease_version=self.wanted_lease)]

    def _part(self, reason: Parting) -> list[Effect]:
        self.state = State.GONE
        return [GoAway(reason=reason)]

    def _start(self, timer: Timer, *, after_s: float | None = None) -> StartTimer:
        self._ticket += 1
        return StartTimer(timer=timer, ticket=self._ticket, after_s=after_s)


def reconnect_after_s(node: str, *, window_s: float) -> float:
    """Return when ``node`` should come back, the fleet spread evenly over ``window_s``."""
    share = int.from_bytes(hashlib.sha256(node.encode()).digest()[:4], "big") / 2**32
    return share * window_s


def holders(subscribers: Iterable[Subscriber], *, generation: int) -> int:
    """Count the streams whose node serves ``generation``."""
    return sum(1 for each in subscribers if each.state is not State.GONE and each.held == generation)
