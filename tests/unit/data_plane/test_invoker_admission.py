"""Invocations at the gate: quotas of tenants, and what happens to whoever had to wait."""

import asyncio
from dataclasses import replace

import pytest

from data_plane.agents.refusals import TenantInFlightExhaustedError, UnknownTemplateError
from data_plane.invoker import InvocationFailedError
from sandbox.outcome import Outcome
from sandbox.request import InvocationRequest
from sandbox.supervisor import HostCalls
from templates.revocations import Revocations
from tests.unit.data_plane.fake_worker import echo, until
from tests.unit.data_plane.test_invoker import World, hangs, world

__all__ = ["world"]


async def test_a_tenant_at_its_quota_is_refused_and_others_are_not(world: World) -> None:
    template = world.activate()
    world.behave(hangs)
    running = asyncio.ensure_future(world.invoker.run(world.call(template, tenant="tiny")))
    await until(lambda: world.invoker.in_flight == 1)
    with pytest.raises(TenantInFlightExhaustedError):
        await world.invoker.run(world.call(template, tenant="tiny"))
    world.behave(echo)
    assert (await world.invoker.run(world.call(template))).output == "in"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert world.gate.quotas.used() == {}


async def test_whoever_waited_for_a_place_is_looked_at_again(world: World) -> None:
    template = world.activate()
    release = asyncio.Event()

    async def waits(request: InvocationRequest, host: HostCalls) -> Outcome:
        await release.wait()
        return await echo(request, host)

    world.behave(waits)
    world.gate._wait_s_max = 30.0
    running = [asyncio.ensure_future(world.invoker.run(world.call(template))) for _ in range(3)]
    await until(lambda: world.gate.queued == 1)
    belief = replace(world.accepted.belief, revocations=Revocations(templates=frozenset({template.sha256})))
    world.activate(accepted=replace(world.accepted, belief=belief))
    release.set()
    results = await asyncio.gather(*running, return_exceptions=True)
    assert [type(each) for each in results] == [InvocationFailedError, InvocationFailedError, UnknownTemplateError]
    assert world.limit.in_flight == world.gate.queued == 0
    assert world.gate.quotas.used() == {}


async def test_what_was_waited_for_a_place_is_no_sign_of_a_busy_worker(world: World) -> None:
    template = world.activate()
    told: list[float] = []
    finish = world.limit.finish

    def note(*, delay_s: float, guest_s: float, duration_s: float, now: float) -> None:
        told.append(delay_s)
        finish(delay_s=delay_s, guest_s=guest_s, duration_s=duration_s, now=now)

    world.limit.finish = note  # type: ignore[method-assign]
    world.gate._wait_s_max = 30.0
    assert world.limit.admit()
    assert world.limit.admit()
    waiting = asyncio.ensure_future(world.invoker.run(world.call(template, received=world.now)))
    await until(lambda: world.gate.queued == 1)
    world.now += 5.0
    finish(delay_s=0.0, guest_s=0.0, duration_s=0.0, now=world.now)
    world.gate._admit_next()
    answer = await waiting
    assert answer.record.usage.wall_us >= 5_000_000
    assert told == [pytest.approx(0.0, abs=0.01)]
