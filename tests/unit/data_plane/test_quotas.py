"""Quotas, the fair queue, and how many workers a tenant gets: tables first, then any sequence of facts."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_plane.admission.fair_queue import FairQueue
from data_plane.admission.quotas import Exceeded, Quota, Resource, TenantQuotas, Use
from data_plane.admission.scaling import ScalingSettings, Step, WorkerScaling

TENANTS = st.sampled_from(["acme", "rival", "third"])


def quotas() -> TenantQuotas:
    return TenantQuotas(
        Quota(in_flight=3, workers=2),
        {"small": Quota(in_flight=1, workers=1, memory_bytes=100), "none": Quota(in_flight=5, workers=0)},
    )


@pytest.mark.parametrize(
    ("tenant", "before", "memory_bytes", "exceeded"),
    [
        ("acme", [10**12, 10**12], 10**12, None),
        ("acme", [1, 1, 1], 1, Exceeded(Resource.IN_FLIGHT, 3)),
        ("small", [], 100, None),
        ("small", [], 101, Exceeded(Resource.MEMORY_BYTES, 100)),
        ("small", [1], 1, Exceeded(Resource.IN_FLIGHT, 1)),
        ("none", [], 1, Exceeded(Resource.WORKERS, 0)),
    ],
)
def test_each_quota_is_named_when_it_stands_in_the_way(
    tenant: str, before: list[int], memory_bytes: int, exceeded: Exceeded | None
) -> None:
    own = quotas()
    for each in before:
        assert own.enter(tenant, each) is None
    assert own.enter(tenant, memory_bytes) == exceeded


def test_what_was_refused_is_not_counted_and_what_left_makes_room() -> None:
    own = quotas()
    assert own.enter("small", 60) is None
    assert own.enter("small", 60) is not None
    own.leave("small", 60)
    assert own.used() == {}
    assert own.enter("small", 100) is None
    assert own.used() == {"small": Use(1, 100)}


def test_a_child_needs_memory_and_no_place_of_its_own() -> None:
    own = quotas()
    assert own.enter("small", 60) is None
    assert own.enter("small", 40, is_child=True) is None
    assert own.enter("small", 1, is_child=True) == Exceeded(Resource.MEMORY_BYTES, 100)
    own.leave("small", 60)
    assert own.used() == {"small": Use(0, 40)}
    own.leave("small", 40, is_child=True)
    assert own.used() == {}


def test_a_tenant_at_its_quota_does_not_disturb_others() -> None:
    own = quotas()
    for _ in range(3):
        assert own.enter("acme", 1) is None
    assert own.enter("acme", 1) is not None
    assert all(own.enter("rival", 1) is None for _ in range(3))


@given(st.lists(st.tuples(TENANTS, st.integers(0, 60), st.booleans(), st.booleans()), max_size=80))
def test_no_sequence_exceeds_a_quota_and_all_that_enters_can_leave(
    steps: list[tuple[str, int, bool, bool]],
) -> None:
    quota = Quota(in_flight=3, workers=1, memory_bytes=100)
    own = TenantQuotas(quota, {})
    inside: list[tuple[str, int, bool]] = []
    for tenant, memory_bytes, is_child, leaves in steps:
        if leaves and inside:
            who, amount, was_child = inside.pop(memory_bytes % len(inside))
            own.leave(who, amount, is_child=was_child)
        elif own.enter(tenant, memory_bytes, is_child=is_child) is None:
            inside.append((tenant, memory_bytes, is_child))
        for use in own.used().values():
            assert 0 <= use.in_flight <= 3
            assert 0 <= use.memory_bytes <= 100
    for who, amount, was_child in inside:
        own.leave(who, amount, is_child=was_child)
    assert all(use == Use() for use in own.used().values())


def drained(queue: FairQueue[str]) -> list[str]:
    found = []
    while (item := queue.pop()) is not None:
        found.append(item)
    return found


def test_tenants_take_turns_and_each_is_served_in_order() -> None:
    queue: FairQueue[str] = FairQueue(length_max=10)
    for item in ("a1", "a2", "a3", "b1", "c1", "b2"):
        assert queue.push(item[0], item) is None
    assert queue.lengths() == {"a": 3, "b": 2, "c": 1}
    assert drained(queue) == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert len(queue) == 0


def test_a_full_queue_sends_away_the_newest_of_whoever_has_most_in_it() -> None:
    queue: FairQueue[str] = FairQueue(length_max=3)
    for item in ("a1", "a2", "a3"):
        assert queue.push("a", item) is None
    assert queue.push("a", "a4") == "a4"
    assert queue.push("b", "b1") == "a3"
    assert queue.push("b", "b2") == "b2"
    assert drained(queue) == ["a1", "b1", "a2"]


def test_whoever_waits_no_longer_is_taken_out() -> None:
    queue: FairQueue[str] = FairQueue(length_max=3)
    for item in ("a1", "a2"):
        queue.push("a", item)
    assert queue.remove("a", "a1")
    assert not queue.remove("a", "a1")
    assert not queue.remove("b", "a2")
    assert drained(queue) == ["a2"]


def test_a_queue_of_no_length_sends_everybody_away() -> None:
    queue: FairQueue[str] = FairQueue(length_max=0)
    assert queue.push("a", "a1") == "a1"
    assert queue.pop() is None


@given(st.lists(st.tuples(st.sampled_from(["push", "push", "pop", "remove"]), TENANTS), max_size=120))
def test_the_queue_is_bounded_and_nobody_is_overtaken_twice_by_one_tenant(steps: list[tuple[str, str]]) -> None:
    queue: FairQueue[object] = FairQueue(length_max=6)
    model: dict[str, deque[object]] = {}
    served_since: dict[str, list[str]] = {}
    for step, tenant in steps:
        if step == "push":
            item = object()
            refused = queue.push(tenant, item)
            model.setdefault(tenant, deque()).append(item)
            served_since.setdefault(tenant, [])
            for line in model.values():
                if refused is not None and refused in line:
                    assert line[-1] is refused
                    line.pop()
        elif step == "remove" and model.get(tenant):
            assert queue.remove(tenant, model[tenant].pop())
        elif step == "pop":
            popped = queue.pop()
            owner = next((each for each, line in model.items() if popped in line), None)
            assert (popped is None) == (owner is None)
            if owner is not None:
                assert model[owner].popleft() is popped
                for waiting, seen in served_since.items():
                    seen.append(owner)
                    if waiting == owner or not model.get(waiting):
                        seen.clear()
                    assert all(seen.count(each) <= 2 for each in seen), (
                        "one tenant had a third turn while another waited"
                    )
        assert len(queue) == sum(len(line) for line in model.values()) <= 6
        assert queue.lengths() == {each: len(line) for each, line in model.items() if line}


SCALING = ScalingSettings(busy_share=0.8, calm_share=0.5, in_flight_busy=100, grow_after=3, shrink_after=5)


def steps(scaling: WorkerScaling, count: int, **facts: float) -> list[Step]:
    known = {"workers": 1, "least": 1, "most": 4, "in_flight": 10, "cpu_s": 0.0, "interval_s": 1.0, **facts}
    return [scaling.step(**known) for _ in range(count)]  # type: ignore[arg-type]


def test_lasting_load_starts_one_worker_and_a_burst_none() -> None:
    scaling = WorkerScaling(SCALING)
    assert steps(scaling, 2, cpu_s=0.95) == [Step.STAY] * 2
    assert steps(scaling, 1, cpu_s=0.1) == [Step.STAY]
    assert steps(scaling, 3, cpu_s=0.95) == [Step.STAY, Step.STAY, Step.GROW]
    assert steps(scaling, 2, workers=2, cpu_s=1.9) == [Step.STAY] * 2  # counts anew


@pytest.mark.parametrize(
    ("facts", "last"),
    [
        ({"cpu_s": 0.95, "in_flight": 1}, Step.STAY),  # one invocation cannot use two workers
        ({"cpu_s": 0.95, "most": 1}, Step.STAY),
        ({"cpu_s": 0.0, "in_flight": 100}, Step.GROW),  # its places are taken by guests that sleep
        ({"workers": 1, "least": 2, "cpu_s": 0.0}, Step.GROW),
        ({"workers": 3, "most": 2, "cpu_s": 3.0}, Step.SHRINK),
        ({"workers": 2, "cpu_s": 1.2}, Step.STAY),
        ({"workers": 0, "least": 1, "most": 0}, Step.STAY),
    ],
)
def test_what_three_intervals_come_to(facts: dict[str, float], last: Step) -> None:
    assert steps(WorkerScaling(SCALING), 3, **facts)[-1] is last


def test_a_lasting_lull_ends_one_worker_and_never_the_last() -> None:
    scaling = WorkerScaling(SCALING)
    assert steps(scaling, 5, workers=2, cpu_s=0.3) == [Step.STAY] * 4 + [Step.SHRINK]
    assert Step.SHRINK not in steps(scaling, 50, workers=1, cpu_s=0.0)
    assert Step.SHRINK not in steps(scaling, 50, workers=2, least=2, cpu_s=0.0)


@given(st.lists(st.floats(0.0, 3.9), min_size=1, max_size=300))
def test_the_number_stays_between_least_and_most_and_settles_under_steady_load(loads: list[float]) -> None:
    scaling, workers = WorkerScaling(SCALING), 1

    def second(load: float) -> None:
        nonlocal workers
        used = min(load, float(workers))
        workers += scaling.step(workers=workers, least=1, most=4, in_flight=50, cpu_s=used, interval_s=1.0).value
        assert 1 <= workers <= 4

    for load in loads:
        second(load)
    steady = loads[-1]
    for _ in range(60):
        second(steady)
    seen = set()
    for _ in range(60):
        second(steady)
        seen.add(workers)
    assert len(seen) == 1, "it neither starts nor ends processes for ever"
    assert steady <= workers or workers == 4
