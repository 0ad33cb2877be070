"""agentctl rollout: what is published for the fleet, and the way back."""

import time
from typing import TYPE_CHECKING, Any, Final

import click

from client.agentctl import connections
from client.agentctl.exit_codes import ExitCode
from client.agentctl.mutations import mutation_fields, mutation_options
from client.agentctl.output import emit, emit_table, fail_line, progress

if TYPE_CHECKING:
    import grpc

_POLL_S: Final = 0.2


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
        "etag": message.etag,
    }


@rollout.command()
@click.option("--count", type=click.IntRange(1, 1000), default=20, help="How many generations at most.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0),
    default=0.0,
    help="Seconds to wait until every connected node runs the newest generation; exit 1 when one refuses it, 7 when "
    "the time passes.",
)
def status(count: int, wait_s: float) -> None:
    """List generations, newest first, with their causes and how many nodes run them."""
    from agentfactory.admin.v1 import admin_pb2 as pb
    from agentfactory.admin.v1.admin_pb2_grpc import RolloutServiceStub

    reached = ExitCode.OK
    with connections.admin_channel(connections.profile()) as channel:
        if wait_s:
            with progress("waiting for the nodes"):
                reached = _wait(channel, until=time.monotonic() + wait_s)
        page = RolloutServiceStub(channel).ListGenerations(pb.ListGenerationsRequest(page_size=count), timeout=10.0)
    rows = [generation_values(one) for one in page.generations]
    emit_table(
        rows, ("generation", "created", "cause", "author", "nodes_active", "nodes_connected"), empty="no generations"
    )
    if reached is not ExitCode.OK:
        raise click.exceptions.Exit(reached)


def _wait(channel: "grpc.Channel", *, until: float) -> ExitCode:
    """Wait for every connected node; a node that refused the newest generation will not run it."""
    from agentfactory.admin.v1 import admin_pb2 as pb
    from agentfactory.admin.v1.admin_pb2_grpc import FleetServiceStub

    stub = FleetServiceStub(channel)
    while True:
        fleet = stub.ListNodes(pb.ListNodesRequest(), timeout=10.0)
        connected = [one for one in fleet.nodes if one.connected]
        refusals = [one for one in connected if one.refusal_reason]
        behind = [one.id for one in connected if one.generation < fleet.generation or one.stage != "ACTIVE"]
        for one in refusals:
            fail_line(f"{one.id}: {one.refusal_reason}: {one.refusal_message}")
        if refusals:
            return ExitCode.FINDINGS
        if connected and not behind:
            return ExitCode.OK
        if time.monotonic() > until:
            fail_line(
                f"generation {fleet.generation} is not active on {', '.join(behind) or 'any node: none connected'}"
            )
            return ExitCode.UNAVAILABLE
        time.sleep(_POLL_S)


@rollout.command()
@click.option(
    "--to", "generation", type=click.IntRange(0), default=0, help="Generation to return to; the one before by default."
)
@click.option("--reason", default="", help="Why; kept with the generation.")
@mutation_options()
def rollback(generation: int, reason: str, **options: Any) -> None:
    """Publish a new generation that names the versions of an older one: at once, for the whole fleet."""
    from agentfactory.admin.v1 import admin_pb2 as pb
    from agentfactory.admin.v1.admin_pb2_grpc import RolloutServiceStub

    with connections.admin_channel(connections.profile()) as channel:
        made = RolloutServiceStub(channel).Rollback(
            pb.RollbackRequest(generation=generation, reason=reason, **mutation_fields(options)), timeout=30.0
        )
    values = generation_values(made)
    emit(values, text=f"generation {made.generation}: {made.cause}\n  " + "\n  ".join(made.templates))
