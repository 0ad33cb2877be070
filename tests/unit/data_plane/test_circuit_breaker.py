"""The circuit breaker: each line of its table, then any sequence of facts against a model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_plane.admission.circuit_breaker import (
    BreakerSettings,
    BreakerState,
    CircuitBreaker,
    CircuitBreakers,
    Permit,
    Refused,
)

SETTINGS = BreakerSettings(
    window_s=10.0,
    calls_min=4,
    failure_share=0.5,
    pause_s_first=1.0,
    pause_s_max=3.0,
    trials=1,
    trials_needed=2,
    trial_s_max=20.0,
)


def admitted(breaker: CircuitBreaker, now: float) -> Permit:
    permit = breaker.admit(now=now)
    assert isinstance(permit, Permit)
    return permit


def opened(now: float = 0.0) -> CircuitBreaker:
    breaker = CircuitBreaker(SETTINGS)
    for _ in range(4):
        breaker.fail(admitted(breaker, now), now=now)
    assert breaker.state is BreakerState.OPEN
    return breaker


def test_few_failures_leave_it_closed() -> None:
    breaker = CircuitBreaker(SETTINGS)
    for _ in range(3):
        breaker.fail(admitted(breaker, 0.0), now=0.0)
    assert breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize(
    ("good", "bad", "state"), [(5, 4, "closed"), (4, 4, "open"), (0, 4, "open"), (40, 39, "closed")]
)
def test_it_opens_at_the_share_of_failures(good: int, bad: int, state: str) -> None:
    breaker = CircuitBreaker(SETTINGS)
    for _ in range(good):
        breaker.succeed(admitted(breaker, 0.0), now=0.0)
    for _ in range(bad):
        breaker.fail(admitted(breaker, 0.0), now=0.0)
    assert breaker.state == state


def test_failures_of_an_earlier_window_do_not_add_up() -> None:
    breaker = CircuitBreaker(SETTINGS)
    for n in range(12):
        breaker.fail(admitted(breaker, n * 4.0), now=n * 4.0)
    assert breaker.state is BreakerState.CLOSED


def test_while_open_callers_are_told_what_is_left_of_the_pause() -> None:
    assert opened().admit(now=0.25) == Refused(0.75)


def test_after_the_pause_one_trial_is_let_in_and_no_other() -> None:
    breaker = opened()
    admitted(breaker, 1.0)
    assert breaker.state is BreakerState.HALF_OPEN
    refused = breaker.admit(now=1.0)
    assert isinstance(refused, Refused)
    assert 0 < refused.retry_s <= SETTINGS.pause_s_first


def test_enough_good_trials_close_it_and_counting_starts_anew() -> None:
    breaker = opened()
    for now in (1.0, 1.1):
        breaker.succeed(admitted(breaker, now), now=now)
    assert breaker.state is BreakerState.CLOSED
    for _ in range(3):
        breaker.fail(admitted(breaker, 1.2), now=1.2)
    assert breaker.state is BreakerState.CLOSED
    breaker.fail(admitted(breaker, 1.2), now=1.2)
    refused = breaker.admit(now=1.2)
    assert isinstance(refused, Refused)
    assert refused.retry_s == pytest.approx(SETTINGS.pause_s_first)


def test_each_bad_trial_doubles_the_pause_up_to_its_ceiling() -> None:
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(4):
        refused = breaker.admit(now=now)
        assert isinstance(refused, Refused)
        pauses.append(refused.retry_s)
        now += refused.retry_s
        breaker.fail(admitted(breaker, now), now=now)
    assert pauses == [1.0, 2.0, 3.0, 3.0]


def test_a_call_from_before_the_change_says_nothing_about_now() -> None:
    breaker = CircuitBreaker(SETTINGS)
    late_good, late_bad = admitted(breaker, 0.0), admitted(breaker, 0.0)
    for _ in range(4):
        breaker.fail(admitted(breaker, 0.0), now=0.0)
    breaker.succeed(late_good, now=0.5)
    assert isinstance(breaker.admit(now=0.5), Refused)
    trial = admitted(breaker, 1.0)
    breaker.fail(late_bad, now=1.0)
    assert isinstance(breaker.admit(now=1.0), Refused)
    breaker.succeed(trial, now=1.0)
    breaker.succeed(admitted(breaker, 1.0), now=1.0)
    assert breaker.state is BreakerState.CLOSED


def test_a_cancelled_trial_makes_room_for_another() -> None:
    breaker = opened()
    breaker.drop(admitted(breaker, 1.0))
    admitted(breaker, 1.0)


def test_a_trial_that_nobody_ends_does_not_keep_it_shut() -> None:
    breaker = opened()
    forgotten = admitted(breaker, 1.0)
    assert isinstance(breaker.admit(now=20.9), Refused)
    admitted(breaker, 21.1)
    breaker.fail(forgotten, now=21.2)
    assert breaker.state is BreakerState.HALF_OPEN


def test_one_tenants_failures_leave_anothers_binding_alone() -> None:
    breakers: CircuitBreakers[tuple[str, str]] = CircuitBreakers(SETTINGS)
    mine = breakers.of(("acme", "api"))
    for _ in range(4):
        mine.fail(admitted(mine, 0.0), now=0.0)
    assert breakers.shut() == (("acme", "api"),)
    admitted(breakers.of(("rival", "api")), 0.0)
    assert breakers.of(("acme", "api")) is mine


def test_the_number_of_breakers_is_bounded_and_the_least_used_goes() -> None:
    breakers: CircuitBreakers[int] = CircuitBreakers(SETTINGS, kept_max=2)
    first, _ = breakers.of(1), breakers.of(2)
    assert breakers.of(1) is first
    breakers.of(3)
    assert breakers.of(1) is first


@given(st.lists(st.tuples(st.sampled_from(["good", "bad", "drop"]), st.floats(0.0, 5.0)), max_size=200))
def test_whatever_happens_it_lets_somebody_in_once_the_longest_pause_is_over(steps: list[tuple[str, float]]) -> None:
    breaker, now = CircuitBreaker(SETTINGS), 0.0
    for verdict, later_s in steps:
        now += later_s
        permit = breaker.admit(now=now)
        if isinstance(permit, Refused):
            assert 0 < permit.retry_s <= SETTINGS.pause_s_max
            continue
        match verdict:
            case "good":
                breaker.succeed(permit, now=now)
            case "bad":
                breaker.fail(permit, now=now)
            case _:
                breaker.drop(permit)
    admitted(breaker, now + SETTINGS.pause_s_max + SETTINGS.trial_s_max)
