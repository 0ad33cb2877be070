"""Live, recorded and replayed time and chance: the same readings, in the same order, or a stop."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.fibers import Turn
from sandbox.nature import (
    TAPE_BYTES_CEILING,
    Draws,
    Kind,
    LeftTapeError,
    RecordingNature,
    RecordOrder,
    ReplayingNature,
    ReplayOrder,
    ReportError,
    Verdict,
    decode,
    encode,
    pack_order,
    read_order,
    read_report,
)
from tests.isolation.components import compiled, component
from tests.unit.sandbox.in_process import World

SEED = bytes(range(32))
ARRIVED_NS = 77_000_000_123


class SteppingClock:
    """Moves by what it is given at each look; its wall clock may go back."""

    def __init__(self, steps: list[int], walls: list[int]) -> None:
        self.now_ns, self.steps, self.walls = ARRIVED_NS, list(steps), list(walls)

    def monotonic_ns(self) -> int:
        self.now_ns += self.steps.pop(0) if self.steps else 1
        return self.now_ns

    def wall_ns(self) -> int:
        return self.walls.pop(0) if self.walls else 1_700_000_000_123_456_789


def recording(clock: SteppingClock, *, tape_bytes_max: int = 1 << 16) -> RecordingNature:
    return RecordingNature(RecordOrder(seed=SEED, tape_bytes_max=tape_bytes_max), clock, ARRIVED_NS)


def replaying(tape: bytes, *, ends_early: bool = False, told: list[str] | None = None) -> ReplayingNature:
    order = ReplayOrder(seed=SEED, tape=tape, ends_early=ends_early)
    return ReplayingNature(order, ARRIVED_NS, ([] if told is None else told).append)


def read(nature: RecordingNature | ReplayingNature, steps: list[str]) -> list[object]:
    found: list[object] = []
    for step in steps:
        match step:
            case "monotonic":
                found.append(nature.monotonic_ns())
            case "wall":
                found.append(nature.wall_ns())
            case "call":
                nature.called("kv", "get")
            case _:
                found.append(nature.random_bytes(int(step)))
    return found


STEPS = st.lists(st.sampled_from(["monotonic", "wall", "call", "0", "8", "300"]), max_size=60)


@given(
    STEPS,
    st.lists(st.integers(0, 10**13), max_size=60),
    st.lists(st.integers(0, 2**62), max_size=60),
)
def test_whatever_is_read_a_replay_reads_the_same(steps: list[str], moves: list[int], walls: list[int]) -> None:
    live = recording(SteppingClock(moves, walls))
    noted = read(live, steps)
    report = read_report(live.report())
    assert report.verdict is Verdict.WHOLE
    again = replaying(report.tape)
    assert read(again, steps) == noted
    assert read_report(again.report()).verdict is Verdict.FOLLOWED


@given(STEPS, STEPS)
def test_another_order_of_readings_is_found_at_the_first_that_differs(steps: list[str], others: list[str]) -> None:
    live = recording(SteppingClock([], []))
    read(live, steps)
    again = replaying(read_report(live.report()).tape)
    shared = next(
        (i for i, (a, b) in enumerate(zip(steps, others, strict=False)) if a != b), min(len(steps), len(others))
    )
    with contextlib.suppress(LeftTapeError):
        read(again, others)
    report = read_report(again.report())
    if steps == others:
        assert report.verdict is Verdict.FOLLOWED
    else:
        assert report.verdict is Verdict.DIVERGED
        assert report.divergence is not None
        assert report.divergence.event == shared
        assert report.divergence.calls == steps[:shared].count("call")


def test_readings_are_whole_microseconds_since_the_arrival_and_cost_two_bytes() -> None:
    live = recording(SteppingClock([1_999] + [40_000] * 99, []))
    found = [live.monotonic_ns() for _ in range(100)]
    assert found[0] == ARRIVED_NS + 1_000
    assert all((each - ARRIVED_NS) % 1_000 == 0 for each in found)
    assert len(live.report()) <= 1 + 2 * 100


def test_a_seed_stands_for_all_randomness_and_no_draw_repeats() -> None:
    first, second = Draws(SEED), Draws(SEED)
    drawn = [first.next(32) for _ in range(50)]
    assert drawn == [second.next(32) for _ in range(50)]
    assert len(set(drawn)) == 50
    assert Draws(bytes(32)).next(32) not in drawn
    assert len(Draws(SEED).next(65_536)) == 65_536


def test_randomness_is_that_of_shake_256() -> None:
    # hashlib.shake_256(bytes(range(32)) + (1).to_bytes(8, "little")), worked out with `openssl dgst -shake256`
    assert Draws(SEED).next(16).hex() == "0b68f85ccb12db7271db866b4e5b922a"


def test_a_tape_over_its_bytes_is_cut_between_events_and_says_so() -> None:
    live = recording(SteppingClock([5_000_000] * 100, []), tape_bytes_max=10)
    found = [live.monotonic_ns() for _ in range(100)]
    report = read_report(live.report())
    assert report.verdict is Verdict.CUT
    assert 0 < len(report.tape) <= 10
    told: list[str] = []
    again = replaying(report.tape, ends_early=True, told=told)
    noted = len(report.tape) // len(encode(Kind.MONOTONIC, 5_000))
    assert [again.monotonic_ns() for _ in range(noted)] == found[:noted]
    with pytest.raises(LeftTapeError) as left:
        again.monotonic_ns()
    assert left.value.is_end
    assert told == [str(left.value)]
    assert read_report(again.report()).verdict is Verdict.ENDED
    with pytest.raises(LeftTapeError):  # however often a guest that swallows it asks
        again.monotonic_ns()


def test_a_guest_that_swallows_a_stop_learns_nothing_more_and_is_told_of_once() -> None:
    told: list[str] = []
    again = replaying(encode(Kind.WALL, 4), told=told)
    for _ in range(3):
        with pytest.raises(LeftTapeError):
            again.monotonic_ns()
    assert len(told) == 1
    report = read_report(again.report())
    assert report.divergence is not None
    assert (report.divergence.expected, report.divergence.got) == (
        "a reading of the wall clock",
        "a reading of the monotonic clock",
    )


def test_what_the_recording_has_left_over_is_a_difference_unless_it_ends_early() -> None:
    tape = encode(Kind.CALL, 0)
    left = read_report(replaying(tape).report())
    assert left.divergence is not None
    assert (left.divergence.expected, left.divergence.got) == ("a host call", "the end")
    assert read_report(replaying(tape, ends_early=True).report()).verdict is Verdict.FOLLOWED


@given(st.binary(max_size=64), STEPS, st.booleans())
def test_a_hostile_tape_stops_or_is_followed_and_nothing_else(tape: bytes, steps: list[str], ends_early: bool) -> None:  # noqa: FBT001
    again = replaying(tape, ends_early=ends_early)
    with contextlib.suppress(LeftTapeError):
        read(again, steps)
    assert read_report(again.report()).verdict in {Verdict.FOLLOWED, Verdict.ENDED, Verdict.DIVERGED}


@given(st.sampled_from(Kind), st.integers(0, 2**61))
def test_events_are_read_as_they_were_written(kind: Kind, value: int) -> None:
    raw = encode(kind, value)
    assert decode(b"xx" + raw + b"yy", 2) == (kind, value, 2 + len(raw))


@pytest.mark.parametrize("raw", [b"", b"\x80", b"\xff" * 11])
def test_what_is_no_event_is_refused(raw: bytes) -> None:
    with pytest.raises(ReportError):
        decode(raw, 0)


@given(st.binary(max_size=200))
def test_any_report_of_a_worker_is_read_or_refused(payload: bytes) -> None:
    with contextlib.suppress(ReportError):
        read_report(payload)


def test_reports_of_other_shapes_are_refused_and_long_texts_are_cut() -> None:
    diverged = bytes((Verdict.DIVERGED,))
    for facts in ([1, 2, 3], [1, 2, 3, 4], ["1", 2, "x", "y"], {"a": 1}, 7):
        with pytest.raises(ReportError):
            read_report(diverged + json.dumps(facts).encode())
    with pytest.raises(ReportError):
        read_report(diverged + b"[" * 100_000)
    divergence = read_report(diverged + json.dumps([1, 2, "x" * 5_000, "y"]).encode()).divergence
    assert divergence is not None
    assert len(divergence.expected) == 200


def test_orders_travel_and_what_is_none_is_refused() -> None:
    for order in (
        None,
        RecordOrder(seed=SEED, tape_bytes_max=123),
        ReplayOrder(seed=SEED, tape=b"\x01\x02", ends_early=True),
    ):
        assert read_order(pack_order(order)) == order
    whole = pack_order(ReplayOrder(seed=SEED, tape=b"\x01\x02"))
    too_much = pack_order(RecordOrder(seed=SEED, tape_bytes_max=TAPE_BYTES_CEILING + 1))
    for raw in (b"\x01", b"\x07" + whole[1:], whole[:-1], whole + b"x", b"\x01" + whole[1:], too_much):
        with pytest.raises(ValueError, match=r"order|unpack"):
            read_order(raw)


def test_live_nature_is_one_object_for_all_and_reads_the_clock_itself() -> None:
    clock = SteppingClock([], [])
    turn = Turn(clock, bytes)
    assert turn.live.monotonic_ns == clock.monotonic_ns
    assert turn.live.random_bytes is bytes
    assert turn.live.report() == b""


READS_THE_CLOCK = component(
    "(drop (call $now)) (call $answer (local.get 0) (local.get 1))",
    imports='(import "wasi:clocks/monotonic-clock@0.2.0" (instance $c (export "now" (func (result u64)))))',
    lowers='(core func $now (canon lower (func $c "now")))\n',
    core_imports='(import "h" "now" (func $now (result i64)))',
)
OF_TEXT = "(result (result string (error string)))"
OF_NOTHING = "(result (result (error string)))"


def image_that_reads_the_clock() -> str:
    """An image with ``load``, ``prepare``, ``load-prepared`` and ``process``; each reads the clock once."""
    memory = '(memory (core memory $memory "m")) (realloc (core func $memory "realloc"))'
    lift = f'(canon lift (core func $main "process") {memory})'
    more = "".join(
        f'(func (export "{name}") (param "text" string) {result} {lift})'
        for name, result in (("load", OF_NOTHING), ("prepare", OF_TEXT), ("load-prepared", OF_NOTHING))
    )
    return READS_THE_CLOCK.removesuffix(")") + more + ")"


def test_what_translating_a_source_reads_is_on_no_tape() -> None:
    world = World()
    program = world.program(compiled(image_that_reads_the_clock()), abi="image")
    order = RecordOrder(seed=SEED, tape_bytes_max=1_000)
    cold, warm = (world.run(program, source=b"source", order=order) for _ in range(2))
    for ended in (cold, warm):
        assert ended.failure is None
        report = read_report(ended.report)
        assert report.verdict is Verdict.WHOLE
        kinds = []
        position = 0
        while position < len(report.tape):
            kind, _, position = decode(report.tape, position)
            kinds.append(kind)
        assert kinds == [Kind.MONOTONIC, Kind.MONOTONIC]  # load-prepared and process
        replay = world.run(
            world.program(compiled(image_that_reads_the_clock()), abi="image"),
            source=b"source",
            order=ReplayOrder(seed=SEED, tape=report.tape),
        )
        assert (replay.failure, replay.output, replay.usage.fuel) == (None, ended.output, ended.usage.fuel)
        assert read_report(replay.report).verdict is Verdict.FOLLOWED


def test_a_live_invocation_reports_nothing() -> None:
    world = World()
    assert world.run(world.program(compiled(READS_THE_CLOCK))).report == b""
