"""agentctl key: the roles of the trust metadata, their keys and when they expire."""

import click

from client.agentctl import connections
from client.agentctl.output import emit_table, warn


@click.group()
def key() -> None:
    """Keys and roles of the trust metadata."""


@key.command("list")
def list_roles() -> None:
    """List every role with its version, keys, threshold and expiry; warns of what expires soon."""
    from agentfactory.admin.v1 import admin_pb2 as pb
    from agentfactory.admin.v1.admin_pb2_grpc import KeyServiceStub

    with connections.admin_channel(connections.profile()) as channel:
        response = KeyServiceStub(channel).ListRoles(pb.ListRolesRequest(), timeout=10.0)
    rows = [
        {
            "role": one.name,
            "version": one.version,
            "expires": one.expire_time.ToJsonString(),
            "threshold": one.threshold,
            "kept": "online" if one.online else "offline",
            "key_ids": [keyid[:16] for keyid in one.key_ids],
        }
        for one in response.roles
    ]
    emit_table(rows, ("role", "version", "expires", "threshold", "kept", "key_ids"), empty="no roles")
    for line in response.warnings:
        warn(line)
