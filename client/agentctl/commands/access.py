"""agentctl whoami, secure-mode, address: who the caller is, and what protects a server."""

from typing import TYPE_CHECKING, Any

import click

from client.agentctl import connections
from client.agentctl.output import Json, emit, emit_table

if TYPE_CHECKING:
    from agentfactory.admin.v1 import access_pb2

_NODE = click.option("--node", default="", help="This node instead of the control plane.")
_REASON = click.option("--reason", default="", help="Why; shown to whoever is refused or asks.")


def _call(node: str, method: str, request: Any) -> Any:
    from agentfactory.admin.v1.access_pb2_grpc import AccessServiceStub

    with connections.server_channel(connections.profile(), node) as channel:
        return getattr(AccessServiceStub(channel), method)(request, timeout=10.0)


@click.command()
@_NODE
def whoami(node: str) -> None:
    """Show who the server takes you for, and which roles you hold there."""
    from agentfactory.admin.v1 import access_pb2 as pb

    caller: access_pb2.Caller = _call(node, "GetCaller", pb.GetCallerRequest())
    roles: list[Json] = [
        {"role": each.role, "domains": list(each.domains), "tenants": list(each.tenants)} for each in caller.roles
    ]
    value: Json = {
        "identity": caller.identity,
        "groups": list(caller.groups),
        "expires": caller.expire_time.ToJsonString(),
        "roles": roles,
    }
    lines = [f"{caller.identity}, until {caller.expire_time.ToJsonString()}"]
    if caller.groups:
        lines.append(f"  groups {', '.join(caller.groups)}")
    lines += [
        f"  {each.role:10} domains {', '.join(each.domains)}; tenants {', '.join(each.tenants)}"
        for each in caller.roles
    ]
    emit(value, text="\n".join(lines if caller.roles else [*lines, "  no role here"]))


@click.group("secure-mode")
def secure_mode() -> None:
    """Have a server read, invoke and revoke, and change nothing else; it outlives a restart."""


@secure_mode.command("on")
@_NODE
@_REASON
def switch_on(node: str, reason: str) -> None:
    """Begin secure mode."""
    _set_mode(node, on=True, reason=reason)


@secure_mode.command("off")
@_NODE
@_REASON
def switch_off(node: str, reason: str) -> None:
    """End secure mode."""
    _set_mode(node, on=False, reason=reason)


@secure_mode.command("status")
@_NODE
def status(node: str) -> None:
    """Show whether secure mode is on, since when, by whom and why, and what was refused since the server started."""
    _show_mode(_access(node))


def _set_mode(node: str, *, on: bool, reason: str) -> None:
    import uuid

    from agentfactory.admin.v1 import access_pb2 as pb

    request = pb.SetSecureModeRequest(on=on, reason=reason, request_id=str(uuid.uuid4()))
    _show_mode(_call(node, "SetSecureMode", request))


def _access(node: str) -> "access_pb2.Access":
    from agentfactory.admin.v1 import access_pb2 as pb

    found: access_pb2.Access = _call(node, "GetAccess", pb.GetAccessRequest())
    return found


def _show_mode(access: "access_pb2.Access") -> None:
    mode = access.secure_mode
    value: Json = {
        "secure_mode": mode.on,
        "by": mode.by,
        "reason": mode.reason,
        "since": mode.since.ToJsonString() if mode.on else "",
        "refusals": dict(sorted(access.refusals.items())),
    }
    text = "secure mode is off"
    if mode.on:
        text = f"secure mode is on since {mode.since.ToJsonString()}, by {mode.by}"
        text += f": {mode.reason}" if mode.reason else ""
    emit(value, text=text)


@click.group()
def address() -> None:
    """Addresses whose calls are refused."""


@address.command("list")
@_NODE
def list_addresses(node: str) -> None:
    """List blocked networks, and addresses that wait because authentication kept failing there."""
    _show_addresses(_access(node))


@address.command()
@click.argument("network")
@_NODE
@_REASON
@click.option("--for", "ttl_s", type=click.IntRange(min=0), default=0, help="Seconds; 0 until somebody lifts it.")
def block(network: str, node: str, reason: str, ttl_s: int) -> None:
    """Refuse every call from NETWORK (192.0.2.7, 2001:db8::/48), and end its streams."""
    import uuid

    from agentfactory.admin.v1 import access_pb2 as pb

    request = pb.BlockAddressRequest(network=network, reason=reason, ttl_s=ttl_s, request_id=str(uuid.uuid4()))
    _show_addresses(_call(node, "BlockAddress", request))


@address.command()
@click.argument("network")
@_NODE
def unblock(network: str, node: str) -> None:
    """Lift the block of NETWORK."""
    import uuid

    from agentfactory.admin.v1 import access_pb2 as pb

    request = pb.UnblockAddressRequest(network=network, request_id=str(uuid.uuid4()))
    _show_addresses(_call(node, "UnblockAddress", request))


def _show_addresses(access: "access_pb2.Access") -> None:
    rows: list[dict[str, Json]] = [
        {
            "network": each.network,
            "state": "blocked",
            "until": each.expire_time.ToJsonString() if each.HasField("expire_time") else "",
            "by": each.by,
            "reason": each.reason,
        }
        for each in access.blocked
    ]
    rows += [
        {
            "network": each.address,
            "state": "waits",
            "until": each.until.ToJsonString(),
            "by": "",
            "reason": f"{each.failures} failed attempts",
        }
        for each in access.backed_off
    ]
    emit_table(rows, ("network", "state", "until", "by", "reason"), empty="no address is blocked or waits")
