"""What the charter lifted runs on: a node remembers every revocation, and not every one of them is still in force."""

import asyncio
from dataclasses import replace

import pytest

from data_plane.invoker import InvocationFailedError
from sandbox.outcome import FailureKind
from templates.revocations import Revocations
from tests.unit.data_plane.fake_worker import until
from tests.unit.data_plane.test_invoker import World, hangs, world

__all__ = ["world"]


@pytest.mark.parametrize("is_lifted", [True, False])
async def test_a_swap_stops_what_is_revoked_unless_the_charter_lifted_it(
    world: World,
    is_lifted: bool,  # noqa: FBT001 - pytest passes it
) -> None:
    template = world.activate()
    world.behave(hangs)
    running = asyncio.ensure_future(world.invoker.run(world.call(template)))
    await until(lambda: world.invoker.in_flight == 1)
    revoked = Revocations(templates=frozenset({template.sha256}))
    accepted = replace(
        world.accepted,
        belief=replace(world.accepted.belief, revocations=revoked),
        charter=replace(world.accepted.charter, lifted=revoked if is_lifted else Revocations()),
    )
    world.activate(template, accepted=accepted)
    if is_lifted:
        await asyncio.sleep(0)
        assert world.invoker.in_flight == 1
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    else:
        with pytest.raises(InvocationFailedError) as stopped:
            await running
        assert stopped.value.kind is FailureKind.REVOKED
