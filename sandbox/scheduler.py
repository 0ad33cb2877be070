"""The fiber scheduler: one thread, thousands of suspended invocations, none able to starve another.

What an invocation is in, and what moves it on:

| State | Means | Moves on |
|---|---|---|
| backlog | all slots are taken | another one ends: fresh |
| fresh | has a turn coming: it is new, or its answer is there | its turn: one slice |
| spent | has a turn coming: it used up its last slice | its turn: one slice |
| long | has a turn coming: it has had ``LONG_NS`` of this thread | its turn: one slice |
| running | one slice: until its fuel interval, its share of imports, or a wait | spent, long, waiting or ended |
| waiting | its import has no answer yet | answer or timer: fresh, or long |
| ended | outcome reported | its store is discarded, and with it its slot is free, once the outcome is on its way |

The three queues are first in, first out. Fresh ones go first, then spent ones, then long ones, but after ``AHEAD_MAX``
turns of those ahead of it the next queue has one: whoever does little waits for one slice of those who compute, however
many they are; a few milliseconds of computation wait for little of what loops; and no queue starves. From every state
but the last, the deadline and a cancellation lead to ended. Only invocations in these queues are polled. The deadline
is checked before each slice, at each import, and by a timer for whoever waits.
"""

import heapq
from collections import deque
from typing import Protocol

from sandbox.engine import Engine, EngineError, Store, Trapped
from sandbox.fibers import (
    IMPORTS_PER_SLICE,
    SLICE_NS,
    Answer,
    Clock,
    Invocation,
    Program,
    Stopped,
    Turn,
    deadline_passed,
)
from sandbox.outcome import Failure, FailureKind, Usage

_STALE_TIMERS_MIN = 4_096
_SHORT_ROUND_NS = 150_000
AHEAD_MAX = 8
LONG_NS = 20_000_000


class Outbox(Protocol):
    """Where the scheduler's effects go."""

    def finished(self, invocation: Invocation, output: bytes | None, usage: Usage) -> None:
        """Report an end: ``output``, or None and ``invocation.failure``. Log lines are in the invocation."""
        ...

    def host_call(self, invocation: Invocation, interface: str, function: str, argument: bytes) -> None:
        """Carry a host call out of the worker."""
        ...


class Scheduler:
    """Runs invocations in turns. ``answer``, ``cancel`` and ``start`` are for between slices, never during one."""

    def __init__(self, engine: Engine, *, slots: int, turn: Turn, outbox: Outbox) -> None:
        self.turn = turn
        self._engine, self._slots, self._outbox = engine, slots, outbox
        self._clock: Clock = turn.clock
        self._invocations: dict[int, Invocation] = {}
        self._running_slots = 0
        self._ended: list[Store] = []
        self._backlog: deque[tuple[Invocation, Program]] = deque()
        self._fresh: deque[Invocation] = deque()
        self._spent: deque[Invocation] = deque()
        self._long: deque[Invocation] = deque()
        self._fresh_left = self._spent_left = AHEAD_MAX
        self._timers: list[tuple[int, int, int, Answer | None]] = []  # time, order, invocation, answer or its deadline
        self._timer_order = 0

    # --- facts

    def start(self, invocation: Invocation, program: Program) -> None:
        """Take an invocation on; it waits for a free slot if there is none."""
        self._invocations[invocation.number] = invocation
        if self._running_slots < self._slots:
            self._admit(invocation, program)
        else:
            self._backlog.append((invocation, program))
            self._set_timer(invocation.deadline_ns, invocation.number, None)

    def answer(self, number: int, value: bytes, *, fuel: int = 0) -> None:
        """Give the answer to the host call of an invocation; ignored when it no longer waits for one.

        ``fuel`` is what others burned for it: the guest has so much less from now on.
        """
        invocation = self._invocations.get(number)
        if invocation is None or invocation.waiting is None or not invocation.waiting.is_host_call:
            return
        if fuel and not invocation.waiting.ready:
            invocation.store.charge(fuel)
        self._give(invocation, invocation.waiting, value)

    def cancel(self, number: int) -> None:
        """Stop an invocation where it is; ignored when it has ended."""
        invocation = self._invocations.get(number)
        if invocation is not None:
            invocation.end(Failure(FailureKind.CANCELLED, "the caller cancelled it"))
            self._finish(invocation, None)

    # --- what invocations ask for (HostLink)

    def send_host_call(self, invocation: Invocation, interface: str, function: str, argument: bytes) -> None:
        self._outbox.host_call(invocation, interface, function, argument)

    def wake_at(self, invocation: Invocation, at_ns: int) -> None:
        self._set_timer(at_ns, invocation.number, invocation.waiting)

    # --- turns

    @property
    def is_idle(self) -> bool:
        """Nobody has a turn coming: wait for facts, at most until ``next_timer_ns``."""
        return not (self._fresh or self._spent or self._long)

    @property
    def next_timer_ns(self) -> int | None:
        """Monotonic time of the next timer."""
        return self._timers[0][0] if self._timers else None

    @property
    def count(self) -> int:
        """Invocations that have not ended."""
        return len(self._invocations)

    def run(self, until_ns: int) -> None:
        """Fire due timers, then run turns until nobody is ready or the time is over.

        A round in which somebody used up a whole slice is a short one: facts that have come meanwhile are worth a look.
        """
        self.discard_ended()
        self._fire_timers()
        clock = self._clock
        short_until_ns = min(until_ns, clock.monotonic_ns() + _SHORT_ROUND_NS)
        while not self.is_idle:
            invocation = self._next()
            if invocation.number not in self._invocations:  # it has ended meanwhile
                continue
            used_up = self._run_slice(invocation)
            if clock.monotonic_ns() >= (short_until_ns if used_up else until_ns):
                break

    def _run_slice(self, invocation: Invocation) -> bool:
        """Run one slice; True when the invocation used it up and is ready for another."""
        turn, clock = self.turn, self._clock
        began = clock.monotonic_ns()
        if began >= invocation.deadline_ns:
            self._end_at_deadline(invocation)
            return False
        turn.invocation, turn.imports_left, turn.ends_ns = invocation, IMPORTS_PER_SLICE, began + SLICE_NS
        invocation.waiting = None
        output = None
        try:
            call = invocation.call
            while call is None or call.poll():
                call = invocation.call = next(invocation.steps)
        except StopIteration as end:
            output = end.value
        except Exception as error:  # noqa: BLE001 - the one guard: whatever an ABI did, the worker goes on
            invocation.end(_failure_of(error, invocation))
        else:
            invocation.guest_ns += clock.monotonic_ns() - began
            return self._park(invocation)
        invocation.guest_ns += clock.monotonic_ns() - began
        self._finish(invocation, output)
        return False

    def _next(self) -> Invocation:
        fresh, spent, long = self._fresh, self._spent, self._long
        if fresh and (self._fresh_left > 0 or not (spent or long)):
            self._fresh_left -= 1
            return fresh.popleft()
        self._fresh_left = AHEAD_MAX
        if spent and (self._spent_left > 0 or not long):
            self._spent_left -= 1
            return spent.popleft()
        self._spent_left = AHEAD_MAX
        return long.popleft()

    def _park(self, invocation: Invocation) -> bool:
        waiting = invocation.waiting
        if waiting is None or waiting.finish is None:  # its fuel interval, or its share of imports or time, has ended
            if waiting is not None:
                waiting.ready = True
            (self._long if invocation.guest_ns >= LONG_NS else self._spent).append(invocation)
            return True
        if not invocation.has_deadline_timer:
            invocation.has_deadline_timer = True
            self._set_timer(invocation.deadline_ns, invocation.number, None)
        return False

    def _admit(self, invocation: Invocation, program: Program) -> None:
        limits = invocation.limits
        self._running_slots += 1
        invocation.store = Store(
            self._engine,
            fuel=limits.fuel,
            memory_bytes=limits.memory_bytes,
            table_elements=limits.table_elements,
            instances=limits.instances,
            tables=limits.tables,
            memories=limits.memories,
        )
        invocation.steps = program.run(invocation)
        self._fresh.append(invocation)

    def _finish(self, invocation: Invocation, output: bytes | None) -> None:
        """End an invocation in whatever state it is, and give its slot to the next."""
        del self._invocations[invocation.number]
        fuel = 0
        if invocation.is_admitted:
            fuel = invocation.store.fuel_used()
            self._ended.append(invocation.store)
        try:
            invocation.close()
        except Exception as error:  # noqa: BLE001 - an ABI that fails to tidy up fails its own invocation, not the worker
            invocation.end(_failure_of(error, invocation))
        if output is not None and len(output) > invocation.limits.output_bytes:
            limit, size = invocation.limits.output_bytes, len(output)
            invocation.end(Failure(FailureKind.OUTPUT, f"expected at most {limit} bytes of output, got {size}"))
        if invocation.failure is not None or output is None:
            output = None
            invocation.end(Failure(FailureKind.CRASH, "the invocation ended without an outcome"))
        usage = Usage(
            fuel,
            (self._clock.monotonic_ns() - invocation.arrived_ns) // 1000,
            invocation.guest_ns // 1000,
            invocation.host_calls,
            invocation.wasi_calls,
            invocation.log_bytes,
            len(invocation.input),
            0 if output is None else len(output),
        )
        self._outbox.finished(invocation, output, usage)

    def discard_ended(self) -> None:
        """Discard the stores of what has ended and give their slots to the next; nobody waits for this.

        Call it when there is time: ``run`` does it first, the worker once more after it has sent what there was to say.
        """
        if not self._ended:
            return
        for store in self._ended:
            store.close()
        self._running_slots -= len(self._ended)
        self._ended.clear()
        while self._backlog and self._running_slots < self._slots:
            waiting, program = self._backlog.popleft()
            if waiting.number in self._invocations:
                self._admit(waiting, program)

    def _end_at_deadline(self, invocation: Invocation) -> None:
        invocation.end(deadline_passed(invocation.limits).failure)
        self._finish(invocation, None)

    # --- answers and timers

    def _give(self, invocation: Invocation, answer: Answer, value: bytes) -> None:
        if not answer.ready:
            answer.value, answer.ready = value, True
            (self._long if invocation.guest_ns >= LONG_NS else self._fresh).append(invocation)

    def _set_timer(self, at_ns: int, number: int, answer: Answer | None) -> None:
        self._timer_order += 1
        heapq.heappush(self._timers, (at_ns, self._timer_order, number, answer))
        if len(self._timers) > _STALE_TIMERS_MIN + 4 * len(self._invocations):  # most belong to ended invocations
            self._timers = [timer for timer in self._timers if timer[2] in self._invocations]
            heapq.heapify(self._timers)

    def _fire_timers(self) -> None:
        timers = self._timers
        if not timers:
            return
        now = self._clock.monotonic_ns()
        while self._timers and self._timers[0][0] <= now:
            _, _, number, answer = heapq.heappop(self._timers)
            invocation = self._invocations.get(number)
            if invocation is None:
                continue
            if answer is None:
                self._end_at_deadline(invocation)
            elif invocation.waiting is answer:
                self._give(invocation, answer, b"")


def _failure_of(error: Exception, invocation: Invocation) -> Failure:
    """Say which limit an error of the guest's call was; anything else is the worker's own fault."""
    if isinstance(error, Stopped):
        return error.failure
    if isinstance(error, Trapped):
        if error.is_out_of_fuel:
            return Failure(FailureKind.FUEL, f"expected at most {invocation.limits.fuel} fuel")
        hint = f"; out of memory shows like this, the limit is {invocation.limits.memory_bytes} bytes"
        return Failure(FailureKind.TRAP, str(error) + (hint if error.is_unreachable else ""))
    if isinstance(error, EngineError):
        text = str(error)
        if any(phrase in text for phrase in _MEMORY_REFUSALS):
            return Failure(FailureKind.MEMORY, text)
        return Failure(FailureKind.TRAP, text)
    return Failure(FailureKind.CRASH, f"the worker failed to run it ({type(error).__name__})")


_MEMORY_REFUSALS = (
    "minimum size",
    "exceeds memory limits",
    "exceeds table limits",
    "resource limit exceeded",
    "count too high",
)
