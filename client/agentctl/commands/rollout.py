"""agentctl rollout: what is published for the fleet, and the way back."""

from typing import Any

import click

from client.agentctl import connections
from client.agentctl.output import emit, emit_table


@click.group()
def rollout() -> None:
    """Generations of the whole fleet."""


def generation_values(message: Any) -> dict[str, Any]:
    """Return a Generation message as plain values."""
    return {
        "generation": message.generation,
        "created": message.create_time.ToJsonString(),
        "cause": message.cause,
        "author": message.author,
        "templates": list(message.templates),
        "nodes_active": message.nodes_active,
        "nodes_connected": message.nodes_connected,
    }


@rollout.command()
@click.option("--count", type=click.IntRange(1, 1000), default=20, help="How many generations at most.")
def status(count: int) -> None:
    """List generations, newest first, with their causes and how many nodes reached the newest."""
    from agentfactory.admin.v1 import admin_pb2 as pb
    from agentfactory.admin.v1.admin_pb2_grpc import RolloutServiceStub

    with connections.admin_channel(connections.profile()) as channel:
        page = RolloutServiceStub(channel).ListGenerations(pb.ListGenerationsRequest(page_size=count), timeout=10.0)
    rows = [generation_values(one) for one in page.generations]
    emit_table(
        rows, ("generation", "created", "cause", "author", "nodes_active", "nodes_connected"), empty="no generations"
    )


@rollout.command()
@click.option(
    "--to", "generation", type=click.IntRange(0), default=0, help="Generation to return to; the one before by default."
)
@click.option("--reason", default="", help="Why; kept with the generation.")
def rollback(generation: int, reason: str) -> None:
    """Publish a new generation that names the versions of an older one: at once, for the whole fleet."""
    from agentfactory.admin.v1 import admin_pb2 as pb
    from agentfactory.admin.v1.admin_pb2_grpc import RolloutServiceStub

    with connections.admin_channel(connections.profile()) as channel:
        made = RolloutServiceStub(channel).Rollback(
            pb.RollbackRequest(generation=generation, reason=reason), timeout=30.0
        )
    values = generation_values(made)
    emit(values, text=f"generation {made.generation}: {made.cause}\n  " + "\n  ".join(made.templates))
