"""The adaptive limit and the fair queue in a seeded world: a simulated node that carries so much and no more.

Time is simulated. Invocations arrive at random, wait for a place, and then share the node's processor; what they wait
there although they could run is what the limit sees. What must never be is checked at every step.
"""

import heapq
import random
from dataclasses import dataclass, field

import pytest

from data_plane.admission.concurrency import ConcurrencyLimit, ConcurrencySettings
from data_plane.admission.fair_queue import FairQueue

SETTINGS = ConcurrencySettings()
WAIT_S_MAX = 2.0


@dataclass(order=True)
class End:
    at: float
    began: float = field(compare=False)
    delay_s: float = field(compare=False)
    guest_s: float = field(compare=False)
    tenant: str = field(compare=False)


@dataclass
class Node:
    """``rate`` invocations a second, one after the other; guests may sleep as well, which needs no processor."""

    rate: float
    seed: int
    sleep_s: float = 0.0
    now: float = 0.0
    free_at: float = 0.0
    busy_s: float = 0.0
    answered: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    waited_s_max: float = 0.0

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.limit = ConcurrencyLimit(SETTINGS, process_time=lambda: self.busy_s)
        self.queue: FairQueue[tuple[str, float]] = FairQueue(length_max=2_048)
        self.ends: list[End] = []

    def play(self, seconds: float, arrivals: dict[str, float]) -> None:
        """Let tenants send ``arrivals`` invocations a second each."""
        until = self.now + seconds
        due = [(self.now + self.dice.expovariate(rate), tenant) for tenant, rate in arrivals.items()]
        heapq.heapify(due)
        while due[0][0] <= until:
            if self.ends and self.ends[0].at <= due[0][0]:
                self._finish(heapq.heappop(self.ends))
                continue
            self.now, tenant = heapq.heappop(due)
            heapq.heappush(due, (self.now + self.dice.expovariate(arrivals[tenant]), tenant))
            if not len(self.queue) and self.limit.admit():
                self._begin(tenant, self.now)
            elif self.queue.push(tenant, (tenant, self.now)) is not None:
                self.refused += 1
            assert self.limit.in_flight == len(self.ends)
            assert SETTINGS.limit_min <= self.limit.limit <= SETTINGS.limit_max
        self.now = until

    def _begin(self, tenant: str, arrived: float) -> None:
        self.waited_s_max = max(self.waited_s_max, self.now - arrived)
        start = max(self.now, self.free_at)
        self.free_at = start + 1 / self.rate
        delay_s = start - self.now + self.sleep_s  # a sleeping guest looks like one that waits
        heapq.heappush(self.ends, End(self.free_at + self.sleep_s, self.now, delay_s, 1 / self.rate, tenant))

    def _finish(self, end: End) -> None:
        self.now = end.at
        self.busy_s += end.guest_s
        self.answered[end.tenant] = self.answered.get(end.tenant, 0) + 1
        duration_s = end.at - end.began
        self.limit.finish(delay_s=end.delay_s, guest_s=end.guest_s, duration_s=duration_s, now=self.now)
        while len(self.queue) and self.limit.admit():
            found = self.queue.pop()
            if found is not None and self.now - found[1] <= WAIT_S_MAX:
                self._begin(*found)
            else:
                self.limit.give_back()
                self.refused += 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rate", [200.0, 1_000.0, 2_000.0])
def test_under_too_much_load_the_limit_settles_where_queueing_is_what_was_set(rate: float, seed: int) -> None:
    node = Node(rate=rate, seed=seed)
    node.play(15, {"acme": 2 * rate})
    node.answered.clear()
    seen = []
    for _ in range(20):
        node.play(0.5, {"acme": 2 * rate})
        seen.append(node.limit.limit)
    ideal = max(SETTINGS.limit_min, SETTINGS.delay_target_s * rate)
    assert 0.6 * ideal <= sum(seen) / len(seen) <= 1.6 * ideal
    assert node.answered["acme"] >= 0.97 * 10 * rate, "the node stays busy"


@pytest.mark.parametrize("seed", range(3))
def test_light_load_is_never_refused_nor_made_to_wait(seed: int) -> None:
    node = Node(rate=1_000.0, seed=seed)
    node.play(40, {"acme": 500.0})
    assert node.refused == 0
    assert node.waited_s_max == 0
    assert node.limit.limit >= SETTINGS.limit_first


@pytest.mark.parametrize("seed", range(3))
def test_a_limit_that_was_cut_recovers_within_seconds(seed: int) -> None:
    node = Node(rate=200.0, seed=seed)
    node.play(20, {"acme": 600.0})
    assert node.limit.limit < 100
    node.rate, node.sleep_s = 30_000.0, 0.4  # other invocations come, which mostly sleep
    node.play(12, {"acme": 2_000.0})
    assert node.limit.limit >= 800
    refused = node.refused
    node.play(5, {"acme": 2_000.0})
    assert node.refused == refused


@pytest.mark.parametrize("seed", range(3))
def test_guests_that_sleep_do_not_lower_the_limit(seed: int) -> None:
    node = Node(rate=10_000.0, seed=seed, sleep_s=3.0)
    node.play(20, {"acme": 300.0})
    assert node.limit.limit >= SETTINGS.limit_first
    assert node.refused == 0


@pytest.mark.parametrize("seed", range(3))
def test_a_flood_of_one_tenant_starves_nobody(seed: int) -> None:
    node = Node(rate=500.0, seed=seed)
    node.play(10, {"flood": 5_000.0})
    node.answered.clear()
    node.play(15, {"flood": 5_000.0, "small": 50.0, "third": 100.0})
    assert node.answered["small"] >= 0.9 * 50 * 15
    assert node.answered["third"] >= 0.9 * 100 * 15
    assert node.answered["flood"] >= 0.8 * (500 - 150) * 15
