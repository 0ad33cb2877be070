"""Agents that invoke agents share slots with those they wait for: they must never hold all of them."""

import asyncio

import pytest

from data_plane.admission.callers import CallerRoom
from data_plane.agents.refusals import ConcurrencyExhaustedError
from templates.grants import Grants
from templates.names import TemplatePattern
from tests.unit.data_plane.fake_worker import until
from tests.unit.data_plane.test_invoker import World, hangs, template_of, world

__all__ = ["world"]


@pytest.mark.parametrize(("slots", "depth_max"), [(1_000, 4), (10, 4), (2, 1), (1_000, 16), (64, 3)])
def test_all_chains_together_leave_a_slot(slots: int, depth_max: int) -> None:
    room = CallerRoom(slots=slots, depth_max=depth_max)
    entered = 0
    while room.enter("acme"):
        entered += 1
    assert entered * depth_max < slots
    assert room.enter("rival")  # who has workers of its own
    room.leave("acme")
    assert room.enter("acme")
    assert not room.enter("acme")


def test_without_children_and_with_one_slot_there_is_room_for_one() -> None:
    assert CallerRoom(slots=1, depth_max=0).most == 1
    assert CallerRoom(slots=1_000, depth_max=0).most == 999


async def test_callers_past_their_room_are_sent_away_and_others_are_not(world: World) -> None:
    world.callers.most = 1
    caller = world.activate(template_of(world.accepted, grants=Grants(agents=(TemplatePattern.parse("docs/*"),))))
    plain = template_of(world.accepted)
    world.behave(hangs)
    running = [asyncio.ensure_future(world.invoker.run(world.call(caller)))]
    await until(lambda: world.invoker.in_flight == 1)
    with pytest.raises(ConcurrencyExhaustedError, match="invoke agents") as refused:
        await world.invoker.run(world.call(caller))
    assert refused.value.retry_s > 0
    running.append(asyncio.ensure_future(world.invoker.run(world.call(plain))))
    await until(lambda: world.invoker.in_flight == 2)
    for each in running:
        each.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    assert world.limit.in_flight == 0
    assert world.callers.enter("acme")
