"""agentctl invocation: what ran recently, and what it logged."""

import json
from typing import TYPE_CHECKING

import click

from client.agentctl import connections
from client.agentctl.output import LOG_CUT, emit, emit_table, is_json, printable, warn

if TYPE_CHECKING:
    from client.values import InvocationRecord


@click.group()
def invocation() -> None:
    """Recent invocations of the caller's tenant."""


@invocation.command("list")
@click.option("--agent", default="", help="Only of this agent (nodes/…/agents/…).")
@click.option("--template", default="", help="Only of this template (domain/name).")
@click.option("--count", type=click.IntRange(1, 1000), default=50, help="How many at most.")
def list_invocations(agent: str, template: str, count: int) -> None:
    """List recent invocations, newest first."""
    with connections.agent_factory(connections.profile()) as factory:
        found = factory.list_invocations(agent=agent, template=template, count=count)
    rows = [one.to_json() if is_json() else _row(one) for one in found]
    emit_table(
        rows,
        ("started", "invocation_id", "template", "outcome", "wall_ms", "fuel", "recorded", "node"),
        empty="no invocations",
    )


def _row(one: "InvocationRecord") -> dict[str, str]:
    return {
        "started": one.started.isoformat(timespec="milliseconds"),
        "invocation_id": one.invocation_id,
        "template": one.receipt.template,
        "outcome": one.outcome,
        "wall_ms": f"{one.receipt.usage.wall_ms:.1f}",
        "fuel": str(one.receipt.usage.fuel),
        "recorded": "yes" if one.has_recording else "",
        "node": one.receipt.node,
    }


@invocation.command()
@click.argument("invocation_id")
def show(invocation_id: str) -> None:
    """Show one invocation: outcome, receipt and log lines."""
    with connections.agent_factory(connections.profile()) as factory:
        record = factory.get_invocation(invocation_id).to_json()
    emit(record, text=json.dumps(record, indent=2, ensure_ascii=False))


@invocation.command()
@click.argument("invocation_id")
def logs(invocation_id: str) -> None:
    """Print the log lines of one invocation."""
    with connections.agent_factory(connections.profile()) as factory:
        record = factory.get_invocation(invocation_id)
    if is_json():
        emit([{"at_ms": line.at_ms, "level": line.level, "message": line.message} for line in record.logs])
        return
    for line in record.logs:
        click.echo(f"{line.at_ms:10.1f} ms  {line.level:8}  {printable(line.message)}")
    if record.logs_cut:
        warn(LOG_CUT)
