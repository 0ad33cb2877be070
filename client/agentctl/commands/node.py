"""agentctl node: the fleet as the control plane sees it, and each node as it sees itself."""

from typing import TYPE_CHECKING, Any

import click

from client.agentctl import connections
from client.agentctl.exit_codes import ExitCode
from client.agentctl.output import Json, emit, emit_table, is_json, printable, warn

if TYPE_CHECKING:
    from agentfactory.node.v1 import node_pb2

    from client.profile import Profile


@click.group()
def node() -> None:
    """Data-plane nodes."""


@node.command("list")
def list_nodes() -> None:
    """List the nodes that the control plane knows: connection, stage, generation, refusal."""
    from agentfactory.admin.v1 import admin_pb2 as pb
    from agentfactory.admin.v1.admin_pb2_grpc import FleetServiceStub

    with connections.admin_channel(connections.profile()) as channel:
        response = FleetServiceStub(channel).ListNodes(pb.ListNodesRequest(), timeout=10.0)
    rows: list[dict[str, Json]] = [
        {
            "id": one.id,
            "connected": one.connected,
            "generation": one.generation,
            "newest": response.generation,
            "stage": one.stage,
            "refusal": f"{one.refusal_reason}: {one.refusal_message}" if one.refusal_reason else "",
            "isolation": one.isolation,
            "in_flight": one.in_flight,
            "agents": one.agents,
            "seen": one.seen_time.ToJsonString() if one.HasField("seen_time") else "",
        }
        for one in response.nodes
    ]
    emit_table(
        rows, ("id", "connected", "generation", "newest", "stage", "agents", "isolation", "refusal"), empty="no nodes"
    )


@node.command()
@click.argument("nodes", nargs=-1)
def status(nodes: tuple[str, ...]) -> None:
    """Ask NODES (by default all) about themselves; exit 1 when one is not serving or refused an update."""
    found = connections.profile()
    reports = [_status(found, name) for name in nodes or sorted(found.nodes)]
    if is_json():
        emit(reports)
    else:
        for report in reports:
            _show(report)
    if any(one["state"] != "SERVING" or one["refusal"] for one in reports):
        raise click.exceptions.Exit(ExitCode.FINDINGS)


def _status(found: "Profile", name: str) -> dict[str, Any]:
    from agentfactory.node.v1 import node_pb2 as pb
    from agentfactory.node.v1.node_pb2_grpc import NodeServiceStub

    from service.status import RemoteError

    if name not in found.nodes:
        raise click.BadParameter(
            f"expected one of the profile's nodes ({', '.join(sorted(found.nodes))}), got {name!r}"
        )
    try:
        with connections.node_channel(found, found.nodes[name]) as channel:
            return status_values(NodeServiceStub(channel).GetNodeStatus(pb.GetNodeStatusRequest(), timeout=10.0))
    except RemoteError as error:
        return {"node": name, "state": "UNREACHABLE", "state_reason": error.message, "refusal": None}


def status_values(message: "node_pb2.NodeStatus") -> dict[str, Any]:
    """Return a node's status as plain values."""
    from agentfactory.node.v1 import node_pb2 as pb

    refusal = message.last_refusal if message.HasField("last_refusal") else None
    return {
        "node": message.node,
        "state": pb.NodeState.Name(message.state).removeprefix("NODE_STATE_"),
        "state_reason": message.state_reason,
        "environment": message.environment,
        "generation": message.generation,
        "activated": message.activate_time.ToJsonString() if message.HasField("activate_time") else "",
        "activation_took_ms": round(message.activation_took.ToMicroseconds() / 1e3, 1),
        "control_plane_connected": message.control_plane_connected,
        "lease_expires": message.lease_expire_time.ToJsonString() if message.HasField("lease_expire_time") else "",
        "lease_expired": message.lease_expired,
        "refusal": None
        if refusal is None
        else {
            "generation": refusal.generation,
            "phase": refusal.phase,
            "template": refusal.template,
            "reason": refusal.reason,
            "message": refusal.message,
            "retryable": refusal.retryable,
        },
        "templates": [
            {"template": one.template, "sha256": one.sha256, "approvers": list(one.approvers)}
            for one in message.templates
        ],
        "isolation": {
            "level": message.isolation.level,
            "demanded": message.isolation.demanded,
            "missing": list(message.isolation.missing),
        },
        "workers": [
            {
                "pid": one.pid,
                "tenant": one.tenant,
                "isolation": one.isolation,
                "in_flight": one.in_flight,
                "invocations": one.invocations,
            }
            for one in message.workers
        ],
        "quarantined": [
            {
                "tenant": one.tenant,
                "template": one.template,
                "template_sha256": one.template_sha256,
                "remaining_s": round(one.remaining.ToMicroseconds() / 1e6, 1),
                "times": one.times,
            }
            for one in message.quarantined
        ],
        "tenants": [
            {
                "tenant": one.tenant,
                "in_flight": one.in_flight,
                "in_flight_max": one.in_flight_max,
                "queued": one.queued,
                "workers": one.workers,
                "workers_max": one.workers_max,
                "memory_bytes": one.memory_bytes,
                "memory_bytes_max": one.memory_bytes_max or None,
            }
            for one in message.tenants
        ],
        "concurrency_limit": message.concurrency_limit,
        "queued": message.queued,
        "expiries": [
            {"role": one.role, "version": one.version, "expires": one.expire_time.ToJsonString()}
            for one in message.expiries
        ],
        "in_flight": message.in_flight,
        "agents": message.agents,
        "version": message.version,
        "wasmtime": message.wasmtime_version,
        "warnings": list(message.warnings),
    }


def _refusal_text(refusal: dict[str, Any]) -> str:
    place = ", ".join(part for part in (refusal["phase"], refusal["template"]) if part)
    return printable(f"refused generation {refusal['generation']} ({place}): {refusal['reason']}: {refusal['message']}")


def _show(report: dict[str, Any]) -> None:
    colour = "green" if report["state"] == "SERVING" else "red"
    click.secho(f"{report['node']}  {report['state']}  {report['state_reason']}".rstrip(), fg=colour)
    if report["state"] == "UNREACHABLE":
        return
    link = "connected" if report["control_plane_connected"] else "not connected"
    lease = f"lease until {report['lease_expires'] or '-'}{' (expired)' if report['lease_expired'] else ''}"
    since = f"since {report['activated'] or '-'} ({report['activation_took_ms']} ms)"
    click.echo(f"  generation {report['generation']} {since}, control plane {link}, {lease}")
    isolation = report["isolation"]
    lacks = f", without {'; '.join(isolation['missing'])}" if isolation["missing"] else ""
    click.echo(printable(f"  isolation {isolation['level'] or '-'} (at least {isolation['demanded']}){lacks}"))
    if report["refusal"]:
        click.secho(f"  {_refusal_text(report['refusal'])}", fg="yellow")
    for one in report["templates"]:
        click.echo(f"  {one['template']:44} {one['sha256'][:16]}  approved by {', '.join(one['approvers'])}")
    for one in report["workers"]:
        click.echo(
            f"  worker {one['pid']} tenant {one['tenant'] or '-'}: {one['isolation']}, {one['in_flight']} in flight, "
            f"{one['invocations']} invocations"
        )
    click.echo(f"  {report['in_flight']} in flight of {report['concurrency_limit']}, {report['queued']} waiting")
    for one in report["tenants"]:
        memory = f"{one['memory_bytes']:,} bytes"
        if one["memory_bytes_max"]:
            memory += f" of {one['memory_bytes_max']:,}"
        click.echo(
            f"  tenant {one['tenant']}: {one['in_flight']} in flight and {one['queued']} waiting of "
            f"{one['in_flight_max']}, workers {one['workers']} of {one['workers_max']}, memory {memory}"
        )
    for one in report["quarantined"]:
        name = one["template"] or one["template_sha256"]
        click.secho(
            f"  quarantined for {one['tenant']}: {printable(name)}, {one['remaining_s']:.0f} s more, time "
            f"{one['times']}; agentctl node release {report['node']}",
            fg="yellow",
        )
    for line in report["warnings"]:
        warn(line)


@node.command()
@click.argument("name", metavar="NODE")
@click.option("--timeout", "timeout_s", type=float, default=60.0, help="Seconds to wait for running invocations.")
def drain(name: str, timeout_s: float) -> None:
    """Make NODE refuse new invocations and wait for running ones; exit 9 when some remain."""
    from agentfactory.node.v1 import node_pb2 as pb
    from agentfactory.node.v1.node_pb2_grpc import NodeServiceStub

    found = connections.profile()
    if name not in found.nodes:
        raise click.BadParameter(f"expected one of {', '.join(sorted(found.nodes))}, got {name!r}")
    with connections.node_channel(found, found.nodes[name]) as channel:
        response = NodeServiceStub(channel).Drain(pb.DrainRequest(), timeout=timeout_s)
    emit({"unfinished": response.unfinished}, text=f"{response.unfinished} unfinished")
    if response.unfinished:
        raise click.exceptions.Exit(ExitCode.PARTLY)


@node.command()
@click.argument("name", metavar="NODE")
@click.option("--tenant", default="", help="Only this tenant's; all by default.")
@click.option("--template", default="", help="domain/name, domain/name@version or a sha256; all by default.")
def release(name: str, tenant: str, template: str) -> None:
    """Let templates run again that NODE refuses because workers kept dying under them."""
    from agentfactory.node.v1 import node_pb2 as pb
    from agentfactory.node.v1.node_pb2_grpc import NodeServiceStub

    found = connections.profile()
    if name not in found.nodes:
        raise click.BadParameter(f"expected one of {', '.join(sorted(found.nodes))}, got {name!r}")
    request = pb.ReleaseQuarantineRequest(tenant=tenant, template=template)
    with connections.node_channel(found, found.nodes[name]) as channel:
        response = NodeServiceStub(channel).ReleaseQuarantine(request, timeout=10.0)
    emit({"released": response.released}, text=f"{response.released} released")
