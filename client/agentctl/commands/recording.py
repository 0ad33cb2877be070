"""agentctl recording: what nodes keep of invocations that were recorded."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from client.agentctl import connections
from client.agentctl.inputs import read_passphrase
from client.agentctl.output import emit_table, is_json, note

if TYPE_CHECKING:
    from client.agent_factory import AgentFactory
    from client.values import KeptRecording


@click.group()
def recording() -> None:
    """Recordings of the caller's tenant; `agentctl replay` runs one again."""


@recording.command("list")
@click.option("--count", type=click.IntRange(1, 1000), default=50, help="How many at most.")
def list_recordings(count: int) -> None:
    """List recordings that nodes keep, newest first."""
    with connections.agent_factory(connections.profile()) as factory:
        found = factory.list_recordings(count=count)
    emit_table(
        [one.to_json() if is_json() else _row(one) for one in found],
        ("created", "invocation_id", "template", "outcome", "size_bytes", "expires", "node"),
        empty="no recordings",
    )


def _row(one: "KeptRecording") -> dict[str, str]:
    return {
        "created": one.created.isoformat(timespec="milliseconds"),
        "invocation_id": one.invocation_id,
        "template": one.template,
        "outcome": one.outcome,
        "size_bytes": f"{one.size_bytes:,}",
        "expires": one.expires.isoformat(timespec="seconds"),
        "node": one.node,
    }


@recording.command()
@click.argument("invocation_id")
@click.option(
    "--file", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Where to write it (mode 0600)."
)
@click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=None,
    help="Encrypts the file.",
)
def fetch(invocation_id: str, file: Path, passphrase_file: Path | None) -> None:
    """Fetch the recording of one invocation, for `agentctl replay`."""
    passphrase = read_passphrase(passphrase_file)
    with connections.agent_factory(connections.profile()) as factory:
        download_recording(factory, invocation_id, file, passphrase=passphrase)


@recording.command()
@click.argument("invocation_ids", metavar="INVOCATION_ID...", nargs=-1, required=True)
def delete(invocation_ids: tuple[str, ...]) -> None:
    """Delete recordings on the nodes that keep them. Copies that were fetched stay where they are."""
    with connections.agent_factory(connections.profile()) as factory:
        for invocation_id in invocation_ids:
            factory.delete_recording(invocation_id)
            note(f"deleted the recording of {invocation_id}")


def download_recording(factory: "AgentFactory", invocation_id: str, file: Path, *, passphrase: bytes | None) -> None:
    """Fetch a recording and write it; the person is told what the file is."""
    from client.recording_files import write_recording

    content = factory.get_recording(invocation_id)
    write_recording(file, content, passphrase=passphrase)
    how = "encrypted" if passphrase is not None else "not encrypted, only you can read it"
    note(f"recording of {invocation_id}: {file} ({len(content):,} bytes, {how}); agentctl replay {file}")
