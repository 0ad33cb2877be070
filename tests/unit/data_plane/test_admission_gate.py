"""The door to the sandbox: who passes, who waits, who is sent away, and that no place is ever lost."""

import asyncio
from collections.abc import Awaitable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_plane.admission.concurrency import ConcurrencyLimit, ConcurrencySettings
from data_plane.admission.quotas import Quota, TenantQuotas
from data_plane.admission_gate import AdmissionGate
from data_plane.agents.refusals import (
    ConcurrencyExhaustedError,
    TenantInFlightExhaustedError,
    TenantMemoryExhaustedError,
    TenantWorkersExhaustedError,
)


def gate(*, room: int = 2, queue_max: int = 4, wait_s_max: float = 5.0, in_flight: int = 10) -> AdmissionGate:
    return AdmissionGate(
        limit=ConcurrencyLimit(
            ConcurrencySettings(limit_min=room, limit_first=room, limit_max=room), process_time=lambda: 0.0
        ),
        quotas=TenantQuotas(
            Quota(in_flight=in_flight, workers=1),
            {
                "poor": Quota(in_flight=1, workers=1),
                "lean": Quota(in_flight=9, workers=1, memory_bytes=10),
                "gone": Quota(in_flight=9, workers=0),
            },
        ),
        queue_max=queue_max,
        wait_s_max=wait_s_max,
    )


async def come(own: AdmissionGate, tenant: str, order: list[str] | None = None, name: str = "") -> None:
    if not own.enter(tenant, 1):
        await own.wait(tenant, 1, remaining_s=None)
    if order is not None:
        order.append(name or tenant)


def go(own: AdmissionGate, tenant: str) -> None:
    own.leave(tenant, 1, delay_s=0.0, guest_s=0.0, duration_s=0.1, now=0.0)


async def settled(*work: Awaitable[None]) -> "list[asyncio.Future[None]]":
    tasks: list[asyncio.Future[None]] = [asyncio.ensure_future(each) for each in work]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


async def test_while_there_is_room_nobody_waits() -> None:
    own = gate()
    assert own.enter("acme", 1)
    assert own.enter("acme", 1)
    assert own.limit.in_flight == 2
    go(own, "acme")
    assert own.enter("rival", 1)


async def test_past_the_limit_tenants_take_turns() -> None:
    own, order = gate(room=1), list[str]()
    await come(own, "acme")
    waiting = await settled(
        *(come(own, name[0], order, name) for name in ("a1", "a2", "b1")),
    )
    assert own.queued == 3
    assert own.queued_of() == {"a": 2, "b": 1}
    for tenant in ("acme", "a", "b"):
        go(own, tenant)
        await settled()
    assert order == ["a1", "b1", "a2"]
    await asyncio.gather(*waiting)
    assert own.queued == 0
    assert own.limit.in_flight == 1


async def test_whoever_comes_while_others_wait_does_not_pass_them() -> None:
    own = gate(room=1)
    await come(own, "acme")
    (waiting,) = await settled(come(own, "acme"))
    assert not own.enter("rival", 1)
    waiting.cancel()


async def test_a_turn_that_does_not_come_in_time_is_a_refusal_with_a_delay() -> None:
    own = gate(room=1, wait_s_max=0.02)
    await come(own, "acme")
    with pytest.raises(ConcurrencyExhaustedError) as refused:
        await come(own, "acme")
    assert refused.value.retry_s > 0
    assert own.queued == 0
    assert own.quotas.used()["acme"].in_flight == 1


async def test_a_callers_deadline_ends_its_wait() -> None:
    own = gate(room=1)
    await come(own, "acme")
    assert not own.enter("acme", 1)
    with pytest.raises(ConcurrencyExhaustedError):
        await own.wait("acme", 1, remaining_s=0.01)


async def test_a_full_queue_sends_the_newest_of_the_greediest_away_at_once() -> None:
    own = gate(room=1, queue_max=2)
    await come(own, "acme")
    first, second = await settled(come(own, "acme"), come(own, "acme"))
    (rival,) = await settled(come(own, "rival"))
    assert second.done()
    assert isinstance(second.exception(), ConcurrencyExhaustedError)
    assert not first.done()
    assert not rival.done()
    go(own, "acme")
    await settled()
    assert first.done()
    rival.cancel()


@pytest.mark.parametrize(
    ("tenant", "memory_bytes", "error", "reason"),
    [
        ("poor", 1, TenantInFlightExhaustedError, "TENANT_IN_FLIGHT_EXHAUSTED"),
        ("lean", 11, TenantMemoryExhaustedError, "TENANT_MEMORY_EXHAUSTED"),
        ("gone", 1, TenantWorkersExhaustedError, "TENANT_WORKERS_EXHAUSTED"),
    ],
)
async def test_a_tenant_at_its_quota_is_told_which_and_nobody_else_notices(
    tenant: str, memory_bytes: int, error: type[Exception], reason: str
) -> None:
    own = gate(room=5)
    if tenant == "poor":
        await come(own, "poor")
    with pytest.raises(error) as refused:
        own.enter(tenant, memory_bytes)
    assert str(getattr(refused.value, "reason", "")) == reason
    assert getattr(refused.value, "retry_s", 0.0) > 0
    assert own.enter("acme", memory_bytes)


async def test_children_pass_at_once_and_count_for_memory() -> None:
    own = gate(room=1)
    assert own.enter("lean", 5)
    own.enter_child("lean", 5)
    with pytest.raises(TenantMemoryExhaustedError):
        own.enter_child("lean", 1)
    own.leave_child("lean", 5)
    own.enter_child("lean", 1)


async def test_a_cancelled_waiter_leaves_no_trace_and_a_place_given_to_it_goes_to_the_next() -> None:
    own, order = gate(room=1), list[str]()
    await come(own, "acme")
    first, second = await settled(come(own, "a", order, "first"), come(own, "b", order, "second"))
    go(own, "acme")  # it is the first one's turn
    first.cancel()  # in the same moment
    await settled()
    assert order in (["second"], ["first"])
    if order == ["first"]:
        go(own, "a")
        await settled()
    await asyncio.gather(second)
    assert own.limit.in_flight == 1
    assert "acme" not in own.quotas.used()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["come", "come", "come", "go", "cancel", "both"]),
            st.sampled_from(["acme", "rival", "poor"]),
            st.integers(0, 20),
        ),
        max_size=60,
    )
)
@settings(deadline=None)
def test_no_place_is_lost_or_given_twice_whatever_happens(steps: list[tuple[str, str, int]]) -> None:
    asyncio.run(play(steps))


async def play(steps: list[tuple[str, str, int]]) -> None:
    own = gate(room=2, queue_max=3, in_flight=4)
    waiting: list[asyncio.Future[None]] = []
    inside: list[str] = []

    def arrived(tenant: str, task: "asyncio.Future[None]") -> None:
        if not task.cancelled() and task.exception() is None:
            inside.append(tenant)

    for step, tenant, number in steps:
        if step == "come":
            task = asyncio.ensure_future(come(own, tenant))
            task.add_done_callback(partial(arrived, tenant))
            waiting.append(task)
        if step in {"go", "both"} and inside:
            go(own, inside.pop(number % len(inside)))
        if step in {"cancel", "both"} and waiting:
            waiting[number % len(waiting)].cancel()
        for _ in range(number % 3 * 3):
            await asyncio.sleep(0)
        assert own.limit.in_flight <= 2
        assert own.queued <= 3
    for _ in range(400):
        await asyncio.sleep(0)
        while inside:
            go(own, inside.pop())
    assert all(task.done() for task in waiting), "everybody had a turn"
    assert own.limit.in_flight == own.queued == 0
    assert own.quotas.used() == {}
