"""agentctl audit: what the control plane decided, who asked, and whether its log is whole."""

import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from client.agentctl import connections
from client.agentctl.exit_codes import ExitCode
from client.agentctl.output import emit, emit_table, fail_line, is_json, note, warn

if TYPE_CHECKING:
    import grpc
    from agentfactory.admin.v1 import audit_pb2

    from client.profile import Profile

F = TypeVar("F", bound=Callable[..., Any])

_SPANS = {"m": "minutes", "h": "hours", "d": "days"}
_FIELDS = ("principal", "action", "resource", "outcome", "code", "since", "until")


@click.group()
def audit() -> None:
    """The audit log: every decision of the control plane, chained and signed."""


class _Moment(click.ParamType[datetime]):
    """A date, a date and time (UTC unless it says otherwise), or a time ago: 90m, 12h, 7d."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        text = str(value)
        if text[:-1].isdecimal() and text[-1:] in _SPANS:
            return datetime.now(UTC) - timedelta(**{_SPANS[text[-1]]: int(text[:-1])})
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"expected 2026-01-31, 2026-01-31T12:00 or 7d, got {text!r}", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _filters(command: F) -> F:
    for option in reversed(
        (
            click.option("--principal", default="", help="Who: a person, service or node, by name or whole URI."),
            click.option(
                "--action", default="", help="What: Service/Method, or either (ApproveChange, RolloutService)."
            ),
            click.option("--resource", default="", help="About what: changes/7."),
            click.option(
                "--outcome", type=click.Choice(["DONE", "UNCHANGED", "REFUSED", "FAILED"]), help="What became of it."
            ),
            click.option("--code", default="", help="Why it was refused: a code of docs/errors.md."),
            click.option("--since", type=_Moment(), help="Not before: 2026-01-31, 2026-01-31T12:00 or 7d."),
            click.option("--until", type=_Moment(), help="Before."),
        )
    ):
        command = option(command)
    return command


def _filter(options: dict[str, Any]) -> "audit_pb2.AuditFilter":
    from agentfactory.admin.v1 import audit_pb2 as pb
    from google.protobuf.timestamp_pb2 import Timestamp

    values: dict[str, Any] = {}
    for name in _FIELDS:
        given = options[name]
        if isinstance(given, datetime):
            values[name] = Timestamp()
            values[name].FromDatetime(given)
        elif given:
            values[name] = given
    return pb.AuditFilter(**values)


@audit.command("list")
@_filters
@click.option("--count", type=click.IntRange(1), default=50, help="How many entries at most.")
def list_entries(count: int, **options: Any) -> None:
    """List entries, newest first."""
    from agentfactory.admin.v1 import audit_pb2 as pb
    from agentfactory.admin.v1.audit_pb2_grpc import AuditServiceStub

    wanted = _filter(options)
    found: list[Any] = []
    token = ""
    with connections.admin_channel(connections.profile()) as channel:
        stub = AuditServiceStub(channel)
        while len(found) < count:
            page = stub.ListAuditEntries(
                pb.ListAuditEntriesRequest(filter=wanted, page_size=min(count - len(found), 200), page_token=token),
                timeout=30.0,
            )
            found += page.entries
            token = page.next_page_token
            if not token:
                break
    emit_table([_row(each) for each in found], _COLUMNS, empty="no entries")
    if token:
        note(f"there are more: --count {2 * count}, or --until {json.loads(found[-1].line)['time']}")


_COLUMNS = ("number", "time", "who", "address", "action", "resource", "outcome", "code", "count")


def _row(message: "audit_pb2.AuditEntry") -> dict[str, Any]:
    value = json.loads(message.line)
    if is_json():
        return {**value, "sha256": message.sha256.hex()}
    who = value["principal"].rpartition("/")[2]
    return {
        **value,
        "number": value["sequence"],
        "time": value["time"][:19] + "Z",
        "who": who,
        "count": value["count"] if value["count"] > 1 else "",
    }


@audit.command()
@click.argument("number", type=click.IntRange(1))
def show(number: int) -> None:
    """Show entry NUMBER whole."""
    from agentfactory.admin.v1 import audit_pb2 as pb
    from agentfactory.admin.v1.audit_pb2_grpc import AuditServiceStub

    with connections.admin_channel(connections.profile()) as channel:
        found = AuditServiceStub(channel).GetAuditEntry(
            pb.GetAuditEntryRequest(name=f"auditEntries/{number}"), timeout=10.0
        )
    value = {**json.loads(found.line), "sha256": found.sha256.hex()}
    emit(value, text="\n".join(f"{name:10} {_shown(each)}" for name, each in value.items() if each not in ("", {}, [])))


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{name}={each}" for name, each in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value)


@audit.command()
@click.argument("file", metavar="[FILE]", default="-", type=click.Path(dir_okay=False, path_type=Path, allow_dash=True))
@_filters
def export(file: Path, **options: Any) -> None:
    """Write the log with its checkpoints to FILE (- or nothing for standard output), as JSON lines.

    With a filter it is an extract, which nobody can verify as a whole.
    """
    from agentfactory.admin.v1 import audit_pb2 as pb

    wanted = _filter(options)
    lines = 0
    with connections.admin_channel(connections.profile()) as channel:
        pieces = _exported(channel, pb.ExportAuditRequest(filter=wanted))
        if str(file) == "-":
            for piece in pieces:
                sys.stdout.buffer.write(piece)
                lines += piece.count(b"\n")
        else:
            with file.open("xb") as out:
                for piece in pieces:
                    out.write(piece)
                    lines += piece.count(b"\n")
    if wanted.ByteSize():
        warn("an extract: it cannot be verified as a whole")
    note(f"{lines} lines")


def _exported(channel: "grpc.Channel", request: "audit_pb2.ExportAuditRequest") -> Iterator[bytes]:
    from agentfactory.admin.v1.audit_pb2_grpc import AuditServiceStub

    for response in AuditServiceStub(channel).ExportAudit(request):
        yield response.lines


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Give lines; a piece has whole ones, each with its line feed."""
    for piece in pieces:
        yield from piece.splitlines()


@audit.command()
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--nodes", "with_nodes", is_flag=True, help="Ask every node for the checkpoint that it holds, and compare."
)
@click.option(
    "--root",
    "root_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The root of trust that you pinned; by default the profile's.",
)
def verify(file: Path | None, *, with_nodes: bool, root_file: Path | None) -> None:
    """Verify the log: on the control plane, or an export in FILE (- for standard input) on this machine, offline.

    With --nodes the log is fetched and verified here, and compared with what each node of the profile saw. Exit 8 when
    it is not whole; what is wrong, and where, is printed.
    """
    if file is None and not with_nodes:
        _verify_there()
        return
    _verify_here(file, with_nodes=with_nodes, root_file=root_file)


def _verify_there() -> None:
    from agentfactory.admin.v1 import audit_pb2 as pb
    from agentfactory.admin.v1.audit_pb2_grpc import AuditServiceStub

    from templates.audit_checkpoint import read_checkpoint

    with connections.admin_channel(connections.profile()) as channel:
        found = AuditServiceStub(channel).VerifyAudit(pb.VerifyAuditRequest(), timeout=115.0)
    signed = read_checkpoint(found.checkpoint).checkpoint.time.isoformat() if found.checkpoint else ""
    value = {
        "whole": not found.findings,
        "entries": found.entries,
        "first": found.first,
        "last": found.last,
        "signed": signed,
        "nodes": list(found.nodes),
        "findings": [
            {"kind": each.kind, "first": each.first, "last": each.last, "message": each.message}
            for each in found.findings
        ],
    }
    _report(value, where="by the control plane itself")


def _verify_here(file: Path | None, *, with_nodes: bool, root_file: Path | None) -> None:
    from agentfactory.admin.v1 import audit_pb2 as pb

    from client.audit_log import verdict_values, verify_export

    found = connections.profile() if with_nodes or file is None or root_file is None else None
    if root_file is None and found is not None:
        root_file = found.trust_directory / "root.json"
    root = b"" if root_file is None else root_file.read_bytes()
    held = _held_by_nodes(found) if with_nodes and found is not None else {}
    if file is None and found is not None:
        with connections.admin_channel(found) as channel:
            lines = _lines(_exported(channel, pb.ExportAuditRequest()))
            verdict = verify_export(lines, root=root, held_by_nodes=held)
    elif file is None or str(file) == "-":
        verdict = verify_export(sys.stdin.buffer, root=root, held_by_nodes=held)
    else:
        with file.open("rb") as opened:
            verdict = verify_export(opened, root=root, held_by_nodes=held)
    _report(verdict_values(verdict, nodes=[node for node, seen in held.items() if seen]), where="on this machine")


def _held_by_nodes(found: "Profile") -> dict[str, bytes]:
    """Ask the nodes themselves: the control plane could keep quiet about what they say to it."""
    from agentfactory.node.v1 import node_pb2
    from agentfactory.node.v1.node_pb2_grpc import NodeServiceStub

    held: dict[str, bytes] = {}
    for node, address in sorted(found.nodes.items()):
        with connections.node_channel(found, address) as channel:
            status = NodeServiceStub(channel).GetNodeStatus(node_pb2.GetNodeStatusRequest(), timeout=10.0)
        held[node] = status.audit_checkpoint
        if not status.audit_checkpoint:
            warn(f"{node} has seen no checkpoint yet")
    return held


def _report(value: dict[str, Any], *, where: str) -> None:
    span = f"entries {value['first']} to {value['last']}" if value["entries"] else "no entries"
    nodes = f"; compared with {', '.join(value['nodes'])}" if value["nodes"] else ""
    signed = f", signed at {value['signed']}" if value["signed"] else ""
    verdict = "whole" if value["whole"] else "NOT WHOLE"
    emit(value, text=f"{verdict}: {span}{signed}, verified {where}{nodes}")
    for each in value["findings"]:
        fail_line(f"{each['kind']}: {each['message']}")
    if not value["whole"]:
        raise click.exceptions.Exit(ExitCode.TRUST)
