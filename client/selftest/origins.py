"""Origins that no template may reach, whatever reviewers sign."""

from contextlib import suppress

from client.selftest.attack import BreachError, Guest
from client.selftest.guests import ask
from client.selftest.requests import FREE
from client.selftest.stage import Stage
from client.selftest.world import World
from templates.reasons import AgentFactoryError


async def never_reached(stage: Stage, origin: str) -> None:
    """Have a template with this origin refused when it is read."""
    guest = Guest(wat=ask(b"http.fetch", b"{}"), grants={"http": [{**FREE, "origin": origin}]})
    directory = stage.scratch / str(len(list(stage.scratch.iterdir())))
    directory.mkdir()
    world = World.make(directory)
    with suppress(AgentFactoryError):
        world.approve("attacks/victim", guest)
        raise BreachError(f"expected the origin {origin!r} to be refused, got a template that is admitted")
