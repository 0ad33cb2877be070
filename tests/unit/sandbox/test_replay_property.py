"""Whatever a guest reads, and in whatever order, a replay under other clocks gives it the same, for the same fuel."""

from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.nature import RecordOrder, ReplayOrder, Verdict, read_report
from tests.isolation.guests import command
from tests.unit.sandbox.fiber_world import End, FakeClock, World

SEED = bytes(range(32))
STATE = 4_096  # results of steps lie from here on
LETTERS_FROM = 97


def _clock(clock: int, at: int) -> str:
    return f"(drop (call $clock_time_get (i32.const {clock}) (i64.const 1) (i32.const {at})))"


def _random(length: int, at: int) -> str:
    return f"(drop (call $random_get (i32.const {at}) (i32.const {length})))"


def _sleep(delay_ns: int, absolute: int, at: int) -> str:
    """Poll a monotonic clock and a stream that is not there, or the clock alone; the events are the result."""
    return (
        "(i64.store (i32.const 600) (i64.const 7)) (i32.store8 (i32.const 608) (i32.const 0))"
        f"(i32.store (i32.const 616) (i32.const 1)) (i64.store (i32.const 624) (i64.const {delay_ns}))"
        f"(i32.store16 (i32.const 640) (i32.const {absolute}))"
        f"(drop (call $poll_oneoff (i32.const 600) (i32.const {at}) (i32.const 1) (i32.const 800)))"
    )


def _call(at: int) -> str:
    return (
        "(i32.store (i32.const 900) (i32.const 0x672e766b)) (i32.store16 (i32.const 904) (i32.const 0x7465))"  # kv.get
        f"(drop (call $call (i32.const 900) (i32.const 6) (i32.const {STATE}) (i32.const 8)"
        f" (i32.const {at}) (i32.const 32)))"
    )


STEP = st.one_of(
    st.tuples(st.just("wall")),
    st.tuples(st.just("monotonic")),
    st.tuples(st.just("random"), st.integers(0, 32)),
    st.tuples(st.just("sleep"), st.integers(0, 50_000_000), st.integers(0, 1)),
    st.tuples(st.just("yield")),
    st.tuples(st.just("call")),
    st.tuples(st.just("branch")),
)


def guest(steps: list[tuple[object, ...]]) -> str:
    """A command that takes the steps and writes all it read as letters; ``branch`` goes by what was read before."""
    body = []
    for index, (name, *rest) in enumerate(steps):
        at = STATE + 32 * index
        match name:
            case "wall":
                body.append(_clock(0, at))
            case "monotonic":
                body.append(_clock(1, at))
            case "random":
                body.append(_random(int(str(rest[0])), at))
            case "sleep":
                body.append(_sleep(int(str(rest[0])) + 1_000_000_000 * int(str(rest[1])), int(str(rest[1])), at))
            case "yield":
                body.append("(drop (call $sched_yield))")
            case "call":
                body.append(_call(at))
            case _:
                more = _random(8, at) + _clock(1, at + 8)
                body.append(
                    f"(if (i32.and (i32.load8_u (i32.const {max(STATE, at - 32)})) (i32.const 1)) (then {more}))"
                )
    size = 32 * max(1, len(steps))
    letters = (
        "(loop $more (i32.store8 (i32.add (i32.const 4096) (local.get $i)) (i32.add (i32.const 97)"
        " (i32.and (i32.load8_u (i32.add (i32.const 4096) (local.get $i))) (i32.const 15))))"
        " (local.set $i (i32.add (local.get $i) (i32.const 1)))"
        f" (br_if $more (i32.lt_u (local.get $i) (i32.const {size}))))"
    )
    write = (
        f"(i32.store (i32.const 0) (i32.const {STATE})) (i32.store (i32.const 4) (i32.const {size}))"
        " (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))"
    )
    return command("(local $i i32)" + "".join(body) + letters + write)


def to_the_end(world: World, number: int, answers: list[bytes]) -> tuple[End, list[bytes]]:
    """Run it, answering its calls in turn and moving time to each timer; return what it asked too."""
    asked: list[bytes] = []
    while number not in world.ends:
        world.settle()
        if world.calls:
            _, _, _, argument = world.calls.pop(0)
            asked.append(argument)
            world.scheduler.answer(number, answers[len(asked) - 1])
        elif number not in world.ends and world.scheduler.next_timer_ns is not None:
            world.clock.now_ns = max(world.clock.now_ns, world.scheduler.next_timer_ns)
    return world.ends[number], asked


def world(step_ns: int, own_random: bytes) -> World:
    """A world whose own randomness is one byte, so that it shows when a guest got it."""
    made = World(clock=FakeClock(step_ns))
    made.turn.live.random_bytes = lambda count: own_random * count
    return made


@settings(max_examples=40, deadline=None)
@given(st.lists(STEP, max_size=12), st.integers(1, 3_000_000), st.integers(0, 3_000_000))
def test_a_replay_under_other_clocks_goes_the_recorded_way(
    steps: list[tuple[object, ...]], recorded_step_ns: int, replayed_step_ns: int
) -> None:
    text = guest(steps)
    answers = [f'{{"ok":{index}}}'.encode() for index in range(len(steps))]
    first = world(recorded_step_ns, b"\x11")
    number = first.start(text, order=RecordOrder(seed=SEED, tape_bytes_max=10_000))
    recorded, asked = to_the_end(first, number, answers)
    report = read_report(recorded.invocation.nature.report())
    assert report.verdict is Verdict.WHOLE

    second = world(replayed_step_ns, b"\x22")
    second.clock.now_ns += 123_456_789_000
    number = second.start(text, order=ReplayOrder(seed=SEED, tape=report.tape))
    replayed, asked_again = to_the_end(second, number, answers)
    assert read_report(replayed.invocation.nature.report()).verdict is Verdict.FOLLOWED
    assert (replayed.kind, replayed.output, asked_again) == (recorded.kind, recorded.output, asked)
    assert replayed.usage.fuel == recorded.usage.fuel
    assert recorded.kind is None, recorded.message
