"""agentctl revoke: take something out of service on every node, at once."""

from typing import Any

import click

from client.agentctl import connections
from client.agentctl.commands.rollout import generation_values
from client.agentctl.inputs import require_terminal
from client.agentctl.mutations import mutation_fields, mutation_options
from client.agentctl.output import emit


@click.command()
@click.argument("kind", type=click.Choice(["template", "module", "reviewer", "node", "identity"]))
@click.argument("target")
@click.option("--reason", required=True, help="Why; kept with the generation.")
@click.option("--yes", is_flag=True, help="Do not ask. Only a new charter lifts a revocation.")
@mutation_options(etag=False)
def revoke(kind: str, target: str, reason: str, yes: bool, **options: Any) -> None:  # noqa: FBT001
    """Revoke TARGET on every node.

    A template version (domain/name@version), a module (sha256), a reviewer or a node (id), an identity (spiffe://…) or
    one certificate of it (serial:HEX).
    """
    from agentfactory.admin.v1 import admin_pb2 as pb
    from agentfactory.admin.v1.admin_pb2_grpc import RolloutServiceStub

    if not yes and not options["validate_only"]:
        require_terminal()
        click.confirm(f"Revoke {kind} {target} on every node? Only a new charter lifts it", abort=True, err=True)
    request = pb.RevokeRequest(reason=reason, **mutation_fields(options))
    setattr(request, kind, target)
    with connections.admin_channel(connections.profile()) as channel:
        made = RolloutServiceStub(channel).Revoke(request, timeout=30.0)
    emit(generation_values(made), text=f"generation {made.generation}: {made.cause}")
