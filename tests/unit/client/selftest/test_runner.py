"""The judge of the attack suite: what must make a case fail does make it fail."""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from client.selftest.attack import (
    Answers,
    Attack,
    AttackClass,
    BreachError,
    Case,
    Guest,
    Seen,
    Timed,
    fails,
    once,
    template_names,
)
from client.selftest.neighbours import Beside, Measured
from client.selftest.node import Node
from client.selftest.runner import FLOOR_MS, PAUSE_S, QUIET_S, RATIO_MAX, ROUNDS_MAX, Result, Runner, level_result
from client.selftest.stage import ATTACKER, OTHER, Canaries, Connections, Stage
from client.selftest.suite import ailments_of
from client.selftest.world import World

CANARIES = Canaries({"the environment": "canary-environment-0123456789abcdef"})
LEVELS = ("rlimits-only", "landlock+seccomp", "full")


class NoNode(Node):
    """Stands where a node stands; a case of these tests never asks it."""


@dataclass
class FakeHouse:
    """Neighbours whose times are given: quiet first, then attack and quiet in turn."""

    times: list[dict[str, Beside]] = field(default_factory=list)
    ill: list[str] = field(default_factory=list)
    rounds: int = 0
    slept: list[float] = field(default_factory=list)

    def stage(self, case: Case) -> Stage:
        node = object.__new__(NoNode)
        return Stage(case=case, node=node, connections=Connections(node), canaries=CANARIES)

    async def start_neighbours(self) -> None:
        self.rounds += 1

    async def stop_neighbours(self) -> Measured:
        quick = {tenant: Beside((1.0,) * 10) for tenant in (ATTACKER, OTHER)}
        return self.times.pop(0) if self.times else quick

    async def ailments(self, case: Case) -> Sequence[str]:
        return self.ill

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def case_of(run: Callable[[Stage], Awaitable[None]], **settings: object) -> Case:
    attack = Attack(run=run, **settings)  # type: ignore[arg-type]
    return Case(name="an_attack", attack_class=AttackClass.HOST, text="It tries.", attack=attack)


async def nothing(stage: Stage) -> None:
    pass


async def judge(run: Callable[[Stage], Awaitable[None]] = nothing, house: FakeHouse | None = None) -> Result:
    return await judged(house or FakeHouse(), case_of(run))


async def judged(house: FakeHouse, case: Case) -> Result:
    return await Runner(house, sleep=house.sleep).run(case)


def slow(tenant: str, milliseconds: float) -> dict[str, Beside]:
    quick = {each: Beside((1.0,) * 10) for each in (ATTACKER, OTHER)}
    return quick | {tenant: Beside((1.0,) * 9 + (milliseconds,))}


async def test_what_holds_is_said_to_hold() -> None:
    assert await judge() == Result(name="an_attack", attack_class="host", held=True)


async def test_a_breach_does_not_hold() -> None:
    async def run(stage: Stage) -> None:
        stage.require(False, "it got out")

    assert await judge(run) == Result(name="an_attack", attack_class="host", held=False, detail="it got out")


async def test_a_case_that_cannot_be_carried_out_proves_nothing() -> None:
    async def run(stage: Stage) -> None:
        raise ConnectionError("no node")

    assert (await judge(run)).detail == "the case itself failed: ConnectionError: no node"


async def test_an_attack_without_end_is_ended_and_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.selftest.runner.CASE_TIMEOUT_S", 0.01)
    was_cancelled = False

    async def run(stage: Stage) -> None:
        nonlocal was_cancelled
        try:
            await asyncio.Event().wait()
        finally:
            was_cancelled = True

    house = FakeHouse()
    assert "expected an end" in (await judge(run, house)).detail
    assert was_cancelled
    assert house.rounds == 2, "the neighbours must be stopped all the same"


SECRET = CANARIES.by_place["the environment"].encode()


@pytest.mark.parametrize(
    "leak",
    [
        SECRET,
        b"PATH=/bin\0CANARY=" + SECRET + b"\0",
        SECRET.hex().encode(),
        SECRET[::-1],
        *(base64.b64encode(b"x" * shift + SECRET + b"tail") for shift in range(3)),
    ],
    ids=["plain", "inside", "hexadecimal", "reversed", "base64-0", "base64-1", "base64-2"],
)
async def test_a_canary_that_the_attacker_saw_does_not_hold(leak: bytes) -> None:
    async def run(stage: Stage) -> None:
        stage.note(leak)

    result = await judge(run)
    assert (result.held, result.detail) == (False, "the attacker saw the canary of the environment")


async def test_a_node_that_is_ill_afterwards_does_not_hold() -> None:
    assert (await judge(house=FakeHouse(ill=["a worker died"]))).detail == "a worker died"


async def test_a_neighbour_that_got_a_wrong_answer_does_not_hold_in_any_round() -> None:
    house = FakeHouse(times=[slow(OTHER, 1.0), {OTHER: Beside((1.0,), ("expected its own input, got 'x'",))}])
    result = await judge(house=house)
    assert result.detail == "neighbour of acme: expected its own input, got 'x'"


@pytest.mark.parametrize("tenant", [ATTACKER, OTHER])
async def test_a_neighbour_that_is_late_in_every_round_does_not_hold(tenant: str) -> None:
    times = [slow(tenant, 1.0), slow(tenant, 1.1 + FLOOR_MS)] * ROUNDS_MAX
    result = await judge(house=FakeHouse(times=times))
    assert not result.held
    assert result.detail == (
        f"neighbour of {tenant}: p99 {1.1 + FLOOR_MS:.1f} ms of 10 calls, at most {1 + FLOOR_MS:.1f} ms allowed "
        f"(1.0 ms without the attack), in {ROUNDS_MAX} rounds"
    )


async def test_a_neighbour_that_was_late_once_is_measured_again() -> None:
    late = [slow(OTHER, 1.0), slow(OTHER, 500.0)] * (ROUNDS_MAX - 1)  # quiet, attack, quiet, attack … and a quick one
    assert (await judge(house=FakeHouse(times=late))).held


async def test_a_late_round_is_repeated_after_ever_longer_pauses_and_quiet_is_measured_after_each() -> None:
    rounds = 0

    async def run(stage: Stage) -> None:
        nonlocal rounds
        rounds += 1

    house = FakeHouse(times=[slow(OTHER, 1.0), slow(OTHER, 500.0)] * ROUNDS_MAX)
    assert not (await judge(run, house)).held
    pauses = [PAUSE_S * 2**number for number in range(ROUNDS_MAX - 1)]
    each = [(QUIET_S, pause) for pause in pauses]  # what the neighbours need after a late round, then the pause
    assert house.slept == [QUIET_S, *(slept for pair in each for slept in pair), QUIET_S]
    assert (rounds, house.rounds) == (ROUNDS_MAX, 1 + 2 * ROUNDS_MAX)


async def test_what_the_neighbours_need_is_measured_once_for_many_attacks_that_delay_nobody() -> None:
    house = FakeHouse()
    runner = Runner(house, sleep=house.sleep)
    for _ in range(3):
        assert (await runner.run(case_of(nothing))).held
    assert (house.slept, house.rounds) == ([QUIET_S], 1 + 3)


async def test_an_attack_is_judged_by_what_the_neighbours_need_now_and_not_by_what_they_needed_once() -> None:
    """A machine that was slow for a moment excuses the attack of that moment, and no later one."""
    house = FakeHouse(times=[slow(OTHER, 1.0), slow(OTHER, 500.0), slow(OTHER, 400.0), slow(OTHER, 500.0)])
    runner = Runner(house, sleep=house.sleep)
    assert (await runner.run(case_of(nothing))).held  # 500 ms beside 400 ms
    assert (await runner.run(case_of(nothing))).held  # 500 ms, still beside 400 ms
    house.times = [slow(OTHER, 900.0), slow(OTHER, 1.0), *([slow(OTHER, 500.0), slow(OTHER, 1.0)] * ROUNDS_MAX)]
    result = await runner.run(case_of(nothing))
    assert "at most 51.0 ms allowed (1.0 ms without the attack)" in result.detail


@pytest.mark.parametrize("why", ["a breach", "an ailment", "a wrong answer", "a leak"])
async def test_a_real_problem_ends_at_once_however_late_the_neighbours_are(why: str) -> None:
    rounds = 0

    async def run(stage: Stage) -> None:
        nonlocal rounds
        rounds += 1
        stage.require(why != "a breach", "it got out")
        if why == "a leak":
            stage.note(SECRET)

    late = slow(OTHER, 500.0)
    if why == "a wrong answer":
        late[OTHER] = Beside(late[OTHER].milliseconds, ("expected its own input",))
    house = FakeHouse(times=[slow(OTHER, 1.0), late], ill=["ill"] if why == "an ailment" else [])
    result = await judge(run, house)
    assert (result.held, rounds) == (False, 1)
    assert "p99" not in result.detail


async def test_every_problem_is_told_and_a_long_detail_is_cut() -> None:
    async def run(stage: Stage) -> None:
        stage.note(SECRET)
        stage.require(False, "it got out")

    several = await judge(run, FakeHouse(ill=["a worker died"]))
    assert several.detail == "it got out; the attacker saw the canary of the environment; a worker died"
    long = await judge(house=FakeHouse(ill=["x" * 10_000]))
    assert (len(long.detail), long.detail[-2:]) == (601, "x…")
    assert long.to_json() == {"name": "an_attack", "class": "host", "held": False, "detail": long.detail}


async def test_neighbours_that_are_not_timed_must_still_be_answered_rightly() -> None:
    wrong = {OTHER: Beside((1.0,), ("expected its own input, got 'x'",)), ATTACKER: Beside((900.0,))}
    untimed = case_of(nothing, timed=Timed.NOBODY)
    assert not (await judged(FakeHouse(times=[slow(OTHER, 1.0), wrong]), untimed)).held
    assert (await judged(FakeHouse(times=[slow(OTHER, 1.0), slow(OTHER, 900.0)] * ROUNDS_MAX), untimed)).held


async def test_what_is_brought_to_other_nodes_takes_nothing_of_this_one() -> None:
    times = [slow(OTHER, 1.0), slow(OTHER, 900.0)] * ROUNDS_MAX
    forged = replace(case_of(nothing), attack_class=AttackClass.TRUST_AND_DISTRIBUTION)
    assert (await judged(FakeHouse(times=times), forged)).held


async def test_a_machine_that_is_slow_without_the_attack_too_is_no_breach() -> None:
    house = FakeHouse(times=[slow(OTHER, 1.0), slow(OTHER, 500.0), slow(OTHER, 400.0)])
    assert (await judge(house=house)).held
    assert house.rounds == 3, "expected what comes after to count in the same round"


async def test_twice_its_own_p99_is_allowed_where_that_is_more_than_the_floor() -> None:
    house = FakeHouse(times=[slow(OTHER, 100.0), slow(OTHER, RATIO_MAX * 100.0)])
    assert (await judge(house=house)).held
    assert house.rounds == 2, "expected one round to be enough"
    times = [slow(OTHER, 100.0), slow(OTHER, RATIO_MAX * 100.0 + 1)] * ROUNDS_MAX
    assert not (await judge(house=FakeHouse(times=times))).held


async def test_one_of_a_crowd_is_not_timed_but_other_tenants_are() -> None:
    late = [slow(ATTACKER, 1.0), slow(ATTACKER, 500.0)] * ROUNDS_MAX
    crowd = case_of(nothing, timed=Timed.OTHER_TENANTS)
    assert (await judged(FakeHouse(times=late), crowd)).held
    late = [slow(OTHER, 1.0), slow(OTHER, 500.0)] * ROUNDS_MAX
    assert not (await judged(FakeHouse(times=late), crowd)).held


# Expectations


@pytest.mark.parametrize(
    "seen",
    [
        Seen(output="reached", reason="OK"),
        Seen(output=None, reason="INTERNAL", message="expected fuel"),
        Seen(output=None, reason="FUEL", message="of another kind"),
    ],
)
def test_a_failure_of_another_kind_is_a_breach(seen: Seen) -> None:
    with pytest.raises(BreachError):
        fails("FUEL", message="expected fuel").check(seen)
    fails("FUEL", message="expected fuel").check(Seen(output=None, reason="FUEL", message="expected fuel, got none"))


def test_an_answer_of_other_text_is_a_breach() -> None:
    Answers("a").check(Seen(output="a", reason="OK"))
    for seen in (Seen(output="b", reason="OK"), Seen(output=None, reason="FUEL")):
        with pytest.raises(BreachError):
            Answers("a").check(seen)


def test_an_attack_is_judged_by_one_of_two_ways() -> None:
    guests = {"guest": Guest(wat="(module)")}
    for wrong in (
        {"guests": guests},
        {"guests": guests, "run": nothing, "expect": fails("FUEL")},
        {"guests": {**guests, "other": Guest(wat="(module)")}, "expect": fails("FUEL")},
    ):
        with pytest.raises(ValueError, match="expected"):
            Attack(**wrong)


def test_two_attacks_cannot_share_a_template() -> None:
    attack = once(Guest(wat="(module)"), expect=fails("FUEL"))
    cases = [Case(name="x" * 40, attack_class=each, text="", attack=attack) for each in list(AttackClass)[:2]]
    with pytest.raises(ValueError, match="expected one template"):
        template_names(cases)


# The node's log and level

GOOD = '{"event":"rpc_answered","level":"info"}'


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("Traceback (most recent call last):", "expected JSON"),
        ('{"event":"x","level":"error"}', "an error of its own"),
        ('{"event":"worker_died","level":"warning"}', "a worker died"),
        ('{"event":"\x1b[2J","level":"info"}', "expected printable"),
        (f'{{"event":"x","level":"info","input":"{SECRET.decode()}"}}', "the log shows the canary"),
        ("[]", "expected JSON"),
    ],
)
def test_a_line_of_the_log_that_must_not_be_there_is_found(line: str, found: str) -> None:
    assert not ailments_of([GOOD], canaries=CANARIES, may_kill=False)
    assert any(found in each for each in ailments_of([GOOD, line], canaries=CANARIES, may_kill=False))


def test_a_death_is_expected_of_an_attack_that_is_one() -> None:
    assert not ailments_of(['{"event":"worker_died","level":"warning"}'], canaries=CANARIES, may_kill=True)


def test_a_level_below_the_demanded_one_does_not_hold() -> None:
    assert level_result("full", demanded="landlock+seccomp", levels=LEVELS).held
    assert level_result("full", demanded="full", levels=LEVELS).detail == "full"
    for reached in ("rlimits-only", "", "of my own"):
        result = level_result(reached, demanded="landlock+seccomp", levels=LEVELS)
        assert not result.held
        assert result.detail == f"expected at least landlock+seccomp, got {reached or 'none'}"


def test_a_world_makes_no_key_that_lies_on_disk(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    world.approve("attacks/one", Guest(wat='(module (memory (export "memory") 1) (func (export "_start")))'))
    keys = [path for path in tmp_path.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]
    assert {path.parent.name for path in keys} <= {"ca"}
