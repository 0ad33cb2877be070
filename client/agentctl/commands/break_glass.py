"""agentctl policy break-glass: the admission policies put aside for one version, by two persons, for a time."""

from typing import Any

import click

from client.agentctl import connections
from client.agentctl.exit_codes import ExitCode
from client.agentctl.mutations import mutation_fields, mutation_options
from client.agentctl.output import emit, emit_table


@click.group("break-glass")
def break_glass() -> None:
    """Put the policies aside for one version: a reason, two persons, a time. Approvals are needed all the same."""


@break_glass.command("open")
@click.argument("template", metavar="DOMAIN/NAME@VERSION")
@click.option("--reason", required=True, help="Why; people read it later.")
@mutation_options(etag=False)
@click.option("--minutes", type=click.IntRange(1, 240), default=60, help="How long, from the confirmation on.")
def open_glass(template: str, reason: str, minutes: int, **options: Any) -> None:
    """Ask for it as a reviewer; exit 10, since nothing happens before another reviewer confirms."""
    from agentfactory.admin.v1 import policy_pb2 as pb

    request = pb.OpenBreakGlassRequest(template=template, reason=reason, minutes=minutes, **mutation_fields(options))
    glass = _call("OpenBreakGlass", request)
    emit(glass, text=f"{glass['name']} for {template} waits until {glass['expires']} for a second person to confirm it")
    raise click.exceptions.Exit(ExitCode.WAITING)


@break_glass.command()
@click.argument("name")
@mutation_options(etag=False)
def confirm(name: str, **options: Any) -> None:
    """Confirm NAME as the second person: from now on the policies yield for its version."""
    from agentfactory.admin.v1 import policy_pb2 as pb

    glass = _call("ConfirmBreakGlass", pb.ConfirmBreakGlassRequest(name=_glass(name), **mutation_fields(options)))
    emit(glass, text=f"{glass['name']} for {glass['template']} is open until {glass['expires']}: {glass['reason']}")


@break_glass.command()
@click.argument("name")
@mutation_options(etag=False)
def close(name: str, **options: Any) -> None:
    """End NAME early."""
    from agentfactory.admin.v1 import policy_pb2 as pb

    glass = _call("CloseBreakGlass", pb.CloseBreakGlassRequest(name=_glass(name), **mutation_fields(options)))
    emit(glass, text=f"{glass['name']} for {glass['template']} is closed after {len(glass['uses'])} uses")


@break_glass.command("list")
def list_glasses() -> None:
    """List every broken glass, newest first, with what it let through."""
    from agentfactory.admin.v1 import policy_pb2 as pb
    from agentfactory.admin.v1.policy_pb2_grpc import PolicyServiceStub

    with connections.admin_channel(connections.profile()) as channel:
        stub = PolicyServiceStub(channel)
        found = connections.all_pages(
            lambda token: stub.ListBreakGlass(pb.ListBreakGlassRequest(page_size=200, page_token=token), timeout=10.0),
            "break_glasses",
        )
    rows = [{**glass_values(each), "used": len(each.uses)} for each in found]
    columns = ("name", "state", "template", "opened_by", "confirmed_by", "expires", "used", "reason")
    emit_table(rows, columns, empty="no glass was ever broken")


def _call(method: str, request: Any) -> dict[str, Any]:
    from agentfactory.admin.v1.policy_pb2_grpc import PolicyServiceStub

    with connections.admin_channel(connections.profile()) as channel:
        return glass_values(getattr(PolicyServiceStub(channel), method)(request, timeout=10.0))


def _glass(text: str) -> str:
    """Accept ``7`` for ``breakGlass/7``."""
    return f"breakGlass/{text}" if text.isdigit() else text


def glass_values(message: Any) -> dict[str, Any]:
    """Return a BreakGlass message as plain values."""
    from agentfactory.admin.v1 import policy_pb2 as pb

    return {
        "name": message.name,
        "state": pb.BreakGlassState.Name(message.state).removeprefix("BREAK_GLASS_STATE_"),
        "template": message.template,
        "reason": message.reason,
        "minutes": message.minutes,
        "opened_by": message.opened_by,
        "opened": message.open_time.ToJsonString(),
        "confirmed_by": message.confirmed_by,
        "closed_by": message.closed_by,
        "expires": message.expire_time.ToJsonString(),
        "uses": [
            {
                "time": use.time.ToJsonString(),
                "action": use.action,
                "person": use.person,
                "policies": list(use.policies),
            }
            for use in message.uses
        ],
    }
