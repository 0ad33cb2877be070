"""Turns, answers, timers and ends, with time in the test's hands and real fibers underneath."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from sandbox.engine import FUEL_PER_SLICE, Call, EngineError
from sandbox.fibers import IMPORTS_PER_SLICE, SLICE_NS, Invocation, Program, Steps, Stopped
from sandbox.outcome import FailureKind
from sandbox.scheduler import AHEAD_MAX, LONG_NS
from tests.isolation import guests
from tests.isolation.guests import LIMITS
from tests.unit.sandbox.fiber_world import ROUND_NS, FakeClock, World

ENDLESS = replace(LIMITS, fuel=10**15, wasi_calls=10**9, host_calls=10**9)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    for number in list(made.scheduler._invocations):
        made.scheduler.cancel(number)
    made.scheduler.discard_ended()


def test_an_invocation_runs_to_its_output(world: World) -> None:
    end = world.run(guests.ECHO, b"hello")
    assert (end.output, end.kind) == (b"hello", None)
    assert (end.usage.input_bytes, end.usage.output_bytes, end.usage.wasi_calls) == (5, 5, 4)
    assert end.usage.fuel > 0
    assert world.scheduler.count == 0


def test_everyone_gets_a_turn_before_anyone_gets_a_second(world: World) -> None:
    spinner = world.start(guests.SPINNER, limits=ENDLESS)
    ordinary = [world.start(guests.ECHO, b"x") for _ in range(5)]
    world.turns(6)
    assert world.order == ordinary
    assert spinner not in world.ends


def test_a_newcomer_waits_for_one_slice_however_many_compute(world: World) -> None:
    for _ in range(8):
        world.start(guests.SPINNER, limits=ENDLESS)
    world.turns(20)
    newcomer = world.start(guests.ECHO, b"x")
    world.turns(2)
    assert newcomer in world.ends


def test_those_who_compute_have_their_turns_among_many_newcomers(world: World) -> None:
    spinner = world.start(guests.SPINNER, limits=ENDLESS)
    world.turns(1)
    before = world.scheduler._invocations[spinner].store.fuel_used()
    for _ in range(3 * (AHEAD_MAX + 1)):
        world.start(guests.ECHO, b"x")
        world.turns(1)
    slices = (world.scheduler._invocations[spinner].store.fuel_used() - before) / FUEL_PER_SLICE
    assert 2 <= slices <= 4


def test_a_short_computation_goes_before_those_that_loop(world: World) -> None:
    loops = [world.start(guests.SPINNER, limits=ENDLESS) for _ in range(8)]
    world.turns(len(loops))
    for loop in loops:
        world.scheduler._invocations[loop].guest_ns = LONG_NS
    world.turns(len(loops))
    before = [world.scheduler._invocations[loop].store.fuel_used() for loop in loops]
    short = world.start(guests.SPINNER, limits=replace(ENDLESS, fuel=4 * FUEL_PER_SLICE))
    world.turns(6)
    after = [world.scheduler._invocations[loop].store.fuel_used() for loop in loops]
    assert world.ends[short].kind == FailureKind.FUEL
    assert sum(after) - sum(before) <= 2 * FUEL_PER_SLICE


def test_what_loops_has_its_turns_among_short_computations(world: World) -> None:
    loop = world.start(guests.SPINNER, limits=ENDLESS)
    world.turns(1)
    world.scheduler._invocations[loop].guest_ns = LONG_NS
    world.turns(1)
    before = world.scheduler._invocations[loop].store.fuel_used()
    short = [world.start(guests.SPINNER, limits=ENDLESS) for _ in range(3)]
    world.turns(4 * (AHEAD_MAX + 1))
    assert world.scheduler._invocations[loop].store.fuel_used() - before >= 2 * FUEL_PER_SLICE
    assert not world.ends
    assert len(short) == 3


def test_a_guest_that_hammers_imports_is_suspended_within_its_share(world: World) -> None:
    hammerer = world.start(guests.WASI_HAMMERER, limits=ENDLESS)
    ordinary = world.start(guests.ECHO, b"x")
    world.turns(2)
    assert list(world.ends) == [ordinary]
    assert world.scheduler._invocations[hammerer].wasi_calls == IMPORTS_PER_SLICE


def test_a_guest_whose_imports_are_slow_is_suspended_when_its_time_is_over() -> None:
    world = World(FakeClock(step_ns=SLICE_NS // 4))
    hammerer = world.start(guests.WASI_HAMMERER, limits=ENDLESS)
    world.turns(1)
    assert 0 < world.scheduler._invocations[hammerer].wasi_calls < 10
    world.scheduler.cancel(hammerer)


def test_a_suspended_import_continues_with_the_right_results(world: World) -> None:
    calls = IMPORTS_PER_SLICE * 3
    text = guests.command(
        f"(local $n i32) (loop $more (if (call $sched_yield) (then unreachable))"
        f"(drop (call $random_get (i32.const 64) (i32.const 8)))"
        f"(if (i32.ne (i32.load8_u (i32.const 65)) (i32.const 1)) (then unreachable))"
        f"(local.set $n (i32.add (local.get $n) (i32.const 1)))"
        f"(br_if $more (i32.lt_u (local.get $n) (i32.const {calls}))))"
    )
    end = world.run(text)
    assert (end.kind, end.usage.wasi_calls) == (None, 2 * calls)


def test_a_waiting_invocation_is_not_polled_until_its_answer_is_there(world: World) -> None:
    number = world.start(guests.ask(b"kv.get", b'{"key":"a"}'))
    world.settle()
    assert world.calls == [(number, "kv", "get", b'{"key":"a"}')]
    assert (world.scheduler.is_idle, number in world.ends) == (True, False)
    world.scheduler.answer(number, b'{"ok":null}')
    assert [world.scheduler.is_idle] == [False]
    world.settle()
    assert world.ends[number].output == b'{"ok":null}'


def test_an_answer_counts_once_and_only_for_who_waits_for_it(world: World) -> None:
    asleep = world.start(guests.sleeper(1_000_000_000))
    asking = world.start(guests.ask(b"kv.get", b"{}"))
    world.settle()
    world.scheduler.answer(asleep, b"not asked")
    world.scheduler.answer(999, b"nobody")
    world.scheduler.answer(asking, b"first")
    world.scheduler.answer(asking, b"second")
    world.settle()
    assert world.ends[asking].output == b"first"
    assert asleep not in world.ends


def test_a_sleeper_wakes_at_its_time_and_not_before(world: World) -> None:
    number = world.start(guests.sleeper(1_000_000_000))
    world.settle()
    assert world.scheduler.next_timer_ns == world.clock.now_ns + 1_000_000_000
    world.advance(999_999_999)
    assert number not in world.ends
    world.advance(1)
    assert world.ends[number].output == b"7"


def test_sleepers_wake_in_the_order_of_their_times(world: World) -> None:
    late = world.start(guests.sleeper(2_000_000))
    early = world.start(guests.sleeper(1_000_000))
    world.settle()
    world.advance(1_500_000)
    world.advance(1_500_000)
    assert world.order == [early, late]


@pytest.mark.parametrize(
    "text",
    [guests.sleeper(10**17), guests.ask(b"kv.get", b"{}"), guests.SPINNER, guests.YIELDER],
    ids=["asleep", "waiting for the host", "computing", "yielding"],
)
def test_the_deadline_ends_an_invocation_in_every_state(world: World, text: str) -> None:
    number = world.start(text, limits=replace(ENDLESS, wall_ms=100))
    world.turns(3)
    world.clock.now_ns += 100_000_000
    world.turns(2)
    assert world.ends[number].kind == FailureKind.DEADLINE
    assert world.scheduler.count == 0


def test_a_deadline_that_passes_during_an_import_ends_the_guest_there() -> None:
    world = World(FakeClock(step_ns=1_000_000))
    number = world.start(guests.WASI_HAMMERER, limits=replace(ENDLESS, wall_ms=5))
    world.scheduler.run(world.clock.now_ns + 10**12)
    assert world.ends[number].kind == FailureKind.DEADLINE


@pytest.mark.parametrize(
    "text",
    [guests.sleeper(10**17), guests.ask(b"kv.get", b"{}"), guests.SPINNER, guests.YIELDER, guests.START_SPINNER],
    ids=["asleep", "waiting for the host", "computing", "yielding", "starting"],
)
def test_cancelling_ends_an_invocation_in_every_state(world: World, text: str) -> None:
    number = world.start(text, limits=ENDLESS)
    world.turns(2)
    world.scheduler.cancel(number)
    world.scheduler.cancel(number)
    world.scheduler.answer(number, b"late")
    assert world.ends[number].kind == FailureKind.CANCELLED
    world.settle()
    assert world.scheduler.count == 0


def test_cancelling_before_the_first_turn_runs_nothing(world: World) -> None:
    number = world.start(guests.SPINNER, limits=ENDLESS)
    world.scheduler.cancel(number)
    world.settle()
    assert world.ends[number].usage.fuel == 0


def test_beyond_the_slots_invocations_wait_their_turn() -> None:
    world = World(slots=2)
    asleep = [world.start(guests.sleeper(1_000)) for _ in range(2)]
    waiting = [world.start(guests.ECHO, b"x") for _ in range(3)]
    world.settle()
    assert world.ends == {}
    world.scheduler.cancel(waiting[1])
    world.advance(1_000)
    assert sorted(world.order) == sorted(asleep + waiting)
    assert world.ends[waiting[0]].output == b"x"


def test_an_end_is_reported_before_its_store_is_discarded_and_frees_its_slot_after() -> None:
    world = World(slots=1)
    first, second = (world.start(guests.ECHO, data) for data in (b"1", b"2"))
    world.scheduler.run(world.clock.now_ns + ROUND_NS)
    assert world.order == [first]
    idle = [world.scheduler.is_idle]
    world.scheduler.discard_ended()
    idle.append(world.scheduler.is_idle)
    assert idle == [True, False]
    world.settle()
    assert world.order == [first, second]


def test_what_waits_for_a_slot_ends_at_its_deadline() -> None:
    world = World(slots=1)
    hog = world.start(guests.sleeper(10**17), limits=replace(LIMITS, wall_ms=86_400_000))
    waiting = world.start(guests.ECHO, b"x", limits=replace(LIMITS, wall_ms=10))
    world.settle()
    world.advance(10_000_000)
    assert world.ends[waiting].kind == FailureKind.DEADLINE
    assert world.ends[waiting].usage.fuel == 0
    world.scheduler.cancel(hog)
    assert world.run(guests.ECHO, b"free").output == b"free"


def test_timers_of_ended_invocations_do_not_pile_up(world: World) -> None:
    text = guests.ask(b"kv.get", b"{}")
    for _ in range(10_000):
        number = world.start(text)
        world.settle()
        world.scheduler.answer(number, b"1")
        world.settle()
    assert len(world.scheduler._timers) < 5_000


class Scripted:
    """A program whose life is the test's."""

    def __init__(self, error: Exception | None = None, output: bytes = b"") -> None:
        self._error, self._output = error, output

    def run(self, invocation: Invocation) -> Steps:
        if invocation.input == b"never":
            yield Call(0, Call.slots())
        if self._error is not None:
            raise self._error
        return self._output


class Untidy:
    """A program that fails when it is closed."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def run(self, invocation: Invocation) -> Steps:
        try:
            return (yield from self._program.run(invocation))
        finally:
            raise LookupError("secret detail")


def test_an_abi_that_fails_to_tidy_up_fails_its_own_invocation_only(world: World) -> None:
    number = world.start(Untidy(world.program(guests.SPINNER)), limits=ENDLESS)
    world.turns(1)
    world.scheduler.cancel(number)
    assert world.ends[number].kind == FailureKind.CANCELLED
    ended = world.run(Untidy(world.program(guests.ECHO)), b"x")
    assert (ended.kind, ended.message) == ("CRASH", "the worker failed to run it (LookupError)")
    assert world.run(guests.ECHO, b"on").output == b"on"


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (Stopped(FailureKind.POLICY, "not granted"), FailureKind.POLICY, "not granted"),
        (EngineError("memory minimum size of 9 pages exceeds memory limits"), FailureKind.MEMORY, "memory minimum"),
        (EngineError("no such export"), FailureKind.TRAP, "no such export"),
        (ZeroDivisionError("secret detail"), FailureKind.CRASH, "the worker failed to run it (ZeroDivisionError)"),
    ],
)
def test_whatever_an_abi_raises_ends_that_invocation_only(
    world: World, error: Exception, kind: FailureKind, message: str
) -> None:
    end = world.run(Scripted(error))
    assert end.kind == kind
    assert message in end.message
    assert world.run(guests.ECHO, b"on").output == b"on"


def test_output_over_the_limit_is_refused_whatever_the_abi_let_through(world: World) -> None:
    end = world.run(Scripted(output=b"x" * 11), limits=replace(LIMITS, output_bytes=10))
    assert (end.kind, end.output) == (FailureKind.OUTPUT, None)


def test_the_same_invocation_burns_the_same_fuel_however_its_turns_fall(world: World) -> None:
    alone = world.run(guests.PIGGYBACK).usage.fuel
    world.start(guests.SPINNER, limits=ENDLESS)
    number = world.start(guests.PIGGYBACK)
    world.turns(10)
    assert world.ends[number].usage.fuel == alone
