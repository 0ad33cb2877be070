"""The adaptive limit and the quarantine, on a clock of their own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_plane.admission.concurrency import ConcurrencyLimit, ConcurrencySettings
from data_plane.admission.quarantine import Quarantine, QuarantineSettings

SETTINGS = ConcurrencySettings(limit_min=4, limit_max=100, limit_first=50, delay_target_s=1.0, interval_s=1.0)


class World:
    """One processor; every second some invocations end after a delay."""

    def __init__(self, settings: ConcurrencySettings = SETTINGS) -> None:
        self.now = 100.0
        self.cpu_s = 0.0
        self.limit = ConcurrencyLimit(settings, process_time=lambda: self.cpu_s)

    def second(self, *, delay_s: float, guest_s: float = 0.0, in_flight: int = 50, cpu_s: float = 0.0) -> None:
        admitted = 0
        while admitted < in_flight and self.limit.admit():
            admitted += 1
        self.now += 1.0
        self.cpu_s += cpu_s
        for _ in range(admitted):
            self.limit.finish(delay_s=delay_s, guest_s=guest_s / max(admitted, 1), duration_s=delay_s, now=self.now)


def test_beyond_the_limit_nobody_is_let_in_until_somebody_leaves() -> None:
    limit = World().limit
    assert all(limit.admit() for _ in range(50))
    assert not limit.admit()
    limit.give_back()
    assert limit.admit()
    assert limit.in_flight == 50


def test_a_ceiling_below_the_floor_is_the_limit() -> None:
    world = World(ConcurrencySettings(limit_min=32, limit_max=2))
    for _ in range(20):
        world.second(delay_s=3.0, guest_s=1.0)
        assert world.limit.limit == 2


def test_callers_are_told_to_stay_away_for_as_long_as_those_ahead_of_them_take() -> None:
    world = World()
    for _ in range(100):
        assert world.limit.admit()
        world.limit.finish(delay_s=0.0, guest_s=0.0, duration_s=2.0, now=world.now)
    assert all(world.limit.admit() for _ in range(50))
    assert world.limit.retry_s(queued=0) == SETTINGS.retry_s_min
    assert world.limit.retry_s(queued=24) == pytest.approx(1.0, rel=0.02)  # 50 leave in two seconds
    assert world.limit.retry_s(queued=10_000) == SETTINGS.retry_s_max


def test_lasting_delay_on_a_busy_processor_cuts_the_limit_down_to_its_floor() -> None:
    world = World()
    limits = []
    for _ in range(30):
        world.second(delay_s=3.0, guest_s=1.0, in_flight=1000)
        limits.append(world.limit.limit)
    assert limits == sorted(limits, reverse=True)
    assert limits[-1] == SETTINGS.limit_min


def test_a_busy_front_counts_like_busy_guests() -> None:
    world = World()
    for _ in range(5):
        world.second(delay_s=3.0, cpu_s=0.9)
    assert world.limit.limit < 50


def test_guests_that_sleep_cost_nothing() -> None:
    world = World()
    for _ in range(10):
        world.second(delay_s=30.0, guest_s=0.01)
    assert world.limit.limit >= 50


def test_one_quick_answer_within_the_interval_shows_that_nothing_queues() -> None:
    world = World()
    for _ in range(10):
        world.limit.admit()
        world.limit.finish(delay_s=0.0, guest_s=0.0, duration_s=0.0, now=world.now)
        world.second(delay_s=3.0, guest_s=1.0)
    assert world.limit.limit >= 50


def test_a_limit_in_use_grows_and_an_idle_one_stays() -> None:
    used, idle = World(), World()
    for _ in range(40):
        used.second(delay_s=0.1, guest_s=1.0, in_flight=1000)
        idle.second(delay_s=0.1, in_flight=1)
    assert used.limit.limit == SETTINGS.limit_max
    assert idle.limit.limit == 50


def test_what_was_measured_before_a_long_silence_does_not_count() -> None:
    world = World()
    world.second(delay_s=3.0, guest_s=1.0)
    world.now += 3600
    world.second(delay_s=3.0, guest_s=1.0)
    assert world.limit.limit == 50


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 10), st.floats(0, 1)), max_size=200))
def test_in_flight_never_exceeds_the_limit_nor_the_bounds(steps: list[tuple[bool, float, float]]) -> None:
    world = World()
    for arrives, delay_s, guest_s in steps:
        if arrives:
            before = world.limit.in_flight
            refused = not world.limit.admit()
            assert refused == (before >= world.limit.limit)
        elif world.limit.in_flight:
            world.now += 0.3
            world.limit.finish(delay_s=delay_s, guest_s=guest_s, duration_s=delay_s, now=world.now)
        assert SETTINGS.limit_min <= world.limit.limit <= SETTINGS.limit_max
        assert world.limit.in_flight >= 0


QUARANTINE = QuarantineSettings(
    crashes=2.0, window_s=60.0, pause_s_first=10.0, pause_s_max=35.0, forgiven_after_s=600.0
)


def test_a_template_that_keeps_crashing_workers_is_refused_for_a_while() -> None:
    quarantine = Quarantine(QUARANTINE)
    assert quarantine.worker_died("acme", ["bad"], now=0.0) == ()
    assert quarantine.remaining_s("acme", "bad", now=0.0) == 0.0
    assert quarantine.worker_died("acme", ["bad"], now=5.0) == ("bad",)
    assert quarantine.remaining_s("acme", "bad", now=7.0) == 8.0
    assert quarantine.remaining_s("acme", "bad", now=15.0) == 0.0


def test_a_tenant_cannot_take_a_template_from_another() -> None:
    quarantine = Quarantine(QUARANTINE)
    for now in (0.0, 1.0):
        quarantine.worker_died("acme", ["bad"], now=now)
    assert quarantine.remaining_s("rival", "bad", now=2.0) == 0.0


def test_a_death_is_charged_in_equal_parts_to_those_that_ran() -> None:
    quarantine = Quarantine(QUARANTINE)
    assert quarantine.worker_died("acme", ["a", "b", "c", "bad"], now=0.0) == ()
    assert quarantine.worker_died("acme", ["bad"], now=1.0) == ()
    assert quarantine.worker_died("acme", ["bad", "bad"], now=2.0) == ("bad",)
    assert quarantine.remaining_s("acme", "a", now=3.0) == 0.0


def test_rare_deaths_do_not_add_up() -> None:
    quarantine = Quarantine(QUARANTINE)
    assert all(quarantine.worker_died("acme", ["bad"], now=61.0 * n) == () for n in range(10))


def test_pauses_double_up_to_their_ceiling_and_are_forgiven_after_good_conduct() -> None:
    quarantine = Quarantine(QUARANTINE)
    now, pauses = 0.0, []
    for _ in range(4):
        for _ in range(2):
            quarantine.worker_died("acme", ["bad"], now=now)
        pauses.append(quarantine.remaining_s("acme", "bad", now=now))
        now += pauses[-1]
    assert pauses == [10.0, 20.0, 35.0, 35.0]
    now += 601.0
    quarantine.worker_died("acme", ["other"], now=now)
    quarantine.worker_died("acme", ["bad"], now=now)
    quarantine.worker_died("acme", ["bad"], now=now)
    assert quarantine.remaining_s("acme", "bad", now=now) == pytest.approx(10.0)


def test_an_operator_lets_a_template_run_again_and_sees_what_is_held() -> None:
    quarantine = Quarantine(QUARANTINE)
    for tenant, template in (("acme", "bad"), ("rival", "bad"), ("acme", "worse")):
        for _ in range(2):
            quarantine.worker_died(tenant, [template], now=0.0)
    held = quarantine.held(now=1.0)
    assert [(each.tenant, each.template, each.remaining_s, each.times) for each in held] == [
        ("acme", "bad", 9.0, 1),
        ("acme", "worse", 9.0, 1),
        ("rival", "bad", 9.0, 1),
    ]
    assert quarantine.release(tenant="acme", templates=["bad"], now=1.0) == 1
    assert quarantine.remaining_s("acme", "bad", now=1.0) == 0.0
    assert quarantine.remaining_s("rival", "bad", now=1.0) == 9.0
    assert quarantine.release(tenant="", templates=None, now=1.0) == 2
    assert quarantine.held(now=1.0) == ()
    assert quarantine.release(tenant="", templates=None, now=1.0) == 0
    quarantine.worker_died("acme", ["bad"], now=2.0)
    assert quarantine.held(now=2.0) == ()  # what was charged before is forgotten too
