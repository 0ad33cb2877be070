"""Whether a binding's remote end may be asked: nobody waits for one that keeps failing, few find out if it is back.

==========  ==========================================  =====================================================
state       fact                                        next
==========  ==========================================  =====================================================
closed      a call succeeded                            closed
closed      a call failed, share of failures reached    open until ``now + pause_s``; the pause doubles
closed      a call failed, share not reached            closed
open        a call asks before the pause is over        open; refused with what is left of it
open        a call asks after it                        half-open; it is the first trial
half-open   a call asks, ``trials`` are under way       half-open; refused for a moment
half-open   a trial succeeded, ``trials_needed`` did    closed; counts and pause start anew
half-open   a trial succeeded, more are needed          half-open
half-open   a trial failed                              open, for twice as long
any         a call that was let in before the last      nothing changes: it says how things were
            change of state ends
any         a call ends without a verdict (cancelled)   nothing changes, but its trial may be taken by another
==========  ==========================================  =====================================================

A trial whose end is never told counts as gone after ``trial_s_max``, so that no caller's mistake keeps a binding shut.
What is a failure is for the caller to say: the remote end did not answer, or answered that it cannot (a status from
500, 429); a refusal of this very request (404, 422) is a success. The pattern: M. Nygard, *Release It!*, 2nd edition.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@unique
class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """Opens when, within ``window_s``, at least ``calls_min`` calls ended and ``failure_share`` of them failed."""

    window_s: float = 30.0
    calls_min: int = 5
    failure_share: float = 0.5
    pause_s_first: float = 1.0
    pause_s_max: float = 60.0
    trials: int = 1
    trials_needed: int = 2
    trial_s_max: float = 60.0


@dataclass(frozen=True, slots=True)
class Permit:
    """The call may be made; its end is told with this."""

    epoch: int
    number: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The call may not be made; another may be tried after ``retry_s`` seconds."""

    retry_s: float


class CircuitBreaker:
    """One binding. Every ``now`` is monotonic, in seconds; each permit is ended once: succeeded, failed or dropped."""

    __slots__ = (
        "_calls",
        "_epoch",
        "_failures",
        "_number",
        "_open_until",
        "_pause_s",
        "_settings",
        "_succeeded",
        "_trials",
        "_window_ends",
        "state",
    )

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self.state = BreakerState.CLOSED
        self._epoch = 0
        self._number = 0
        self._calls = 0
        self._failures = 0
        self._window_ends = 0.0
        self._pause_s = settings.pause_s_first
        self._open_until = 0.0
        self._trials: dict[int, float] = {}
        self._succeeded = 0

    def admit(self, *, now: float) -> Permit | Refused:
        if self.state is BreakerState.OPEN:
            if now < self._open_until:
                return Refused(self._open_until - now)
            self._turn(BreakerState.HALF_OPEN)
        self._number += 1
        if self.state is BreakerState.HALF_OPEN:
            self._trials = {number: until for number, until in self._trials.items() if until > now}
            if len(self._trials) >= self._settings.trials:
                return Refused(min(self._settings.pause_s_first, min(self._trials.values()) - now))
            self._trials[self._number] = now + self._settings.trial_s_max
        return Permit(self._epoch, self._number)

    def succeed(self, permit: Permit, *, now: float) -> None:
        """The remote end did its part."""
        if permit.epoch != self._epoch:
            return
        if self.state is BreakerState.CLOSED:
            self._count(now)
            return
        if self._trials.pop(permit.number, None) is None:
            return
        self._succeeded += 1
        if self._succeeded >= self._settings.trials_needed:
            self._pause_s = self._settings.pause_s_first
            self._turn(BreakerState.CLOSED)

    def fail(self, permit: Permit, *, now: float) -> None:
        """The remote end did not answer, or said that it cannot."""
        if permit.epoch != self._epoch:
            return
        if self.state is BreakerState.CLOSED:
            self._count(now)
            self._failures += 1
            enough = self._calls >= self._settings.calls_min
            if enough and self._failures >= self._settings.failure_share * self._calls:
                self._open(now)
        elif self._trials.pop(permit.number, None) is not None:
            self._open(now)

    def drop(self, permit: Permit) -> None:
        """Nobody knows: the call was cancelled, or never left."""
        self._trials.pop(permit.number, None)

    def _count(self, now: float) -> None:
        if now >= self._window_ends:
            self._calls = self._failures = 0
            self._window_ends = now + self._settings.window_s
        self._calls += 1

    def _open(self, now: float) -> None:
        self._open_until = now + self._pause_s
        self._pause_s = min(self._pause_s * 2, self._settings.pause_s_max)
        self._turn(BreakerState.OPEN)

    def _turn(self, state: BreakerState) -> None:
        self.state = state
        self._epoch += 1
        self._calls = self._failures = self._succeeded = 0
        self._window_ends = 0.0
        self._trials = {}


class CircuitBreakers(Generic[K]):
    """The breakers of many bindings. Key them by tenant first: a tenant may not shut a binding for another."""

    def __init__(self, settings: BreakerSettings, *, kept_max: int = 10_000) -> None:
        """Beyond ``kept_max`` the one that was used longest ago is forgotten, closed or not."""
        self._settings = settings
        self._kept_max = kept_max
        self._breakers: OrderedDict[K, CircuitBreaker] = OrderedDict()

    def of(self, key: K) -> CircuitBreaker:
        breaker = self._breakers.get(key)
        if breaker is None:
            breaker = self._breakers[key] = CircuitBreaker(self._settings)
            if len(self._breakers) > self._kept_max:
                self._breakers.popitem(last=False)
        else:
            self._breakers.move_to_end(key)
        return breaker

    def shut(self) -> tuple[K, ...]:
        """Return the keys whose breaker is not closed, for an operator's eyes."""
        return tuple(key for key, breaker in self._breakers.items() if breaker.state is not BreakerState.CLOSED)
