"""agentctl replay: run a recorded invocation again, here, and say where it goes another way."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from client.agentctl import connections
from client.agentctl.exit_codes import ExitCode
from client.agentctl.inputs import read_passphrase
from client.agentctl.output import emit, fail_line, is_json, note, warn

if TYPE_CHECKING:
    from client.replay import Replay
    from sandbox.recording import Recording

OUTPUT_SHOWN_MAX: Final = 2_000
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("file", type=_FILE)
@click.option("--module", type=_FILE, default=None, help="The module or image that ran; looked for by default.")
@click.option(
    "--code",
    "directories",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where to look for it too: files called by their sha256, or *.wasm.",
)
@click.option("--passphrase-file", type=_FILE, default=None, help="Opens a recording that was encrypted.")
@click.option(
    "--source", type=_FILE, default=None, help="Run this source in place of the recorded one: would it do the same?"
)
@click.option("--logs", is_flag=True, help="Show what the agent logs while it is replayed.")
def replay(
    file: Path,
    module: Path | None,
    directories: tuple[Path, ...],
    passphrase_file: Path | None,
    source: Path | None,
    logs: bool,  # noqa: FBT001
) -> None:
    """Run the recording FILE again in a local sandbox and compare.

    Exit status 0: identical as far as it was recorded. 1: it went another way; the first difference is said.
    """
    from client.recording_files import read_recording
    from client.replay import run
    from client.replay_code import find_code

    recording = read_recording(file, passphrase=read_passphrase(passphrase_file))
    compiled = find_code(recording, module=module, directories=directories, fetch=_fetch, tell=note)
    if source is not None and recording.source is None:
        raise click.BadParameter("the recorded agent is a module, which has no source", param_hint="--source")
    found = run(recording, compiled, source=None if source is None else source.read_bytes())
    for line in found.logs if logs else ():
        note(f"[{line.at_us / 1e3:8.1f} ms] {line.level}: {line.message}")
    for each in found.notes:
        warn(each)
    if is_json():
        emit(found.to_json())
    else:
        _show(found)
    if not found.is_identical:
        raise click.exceptions.Exit(ExitCode.FINDINGS)


def _fetch(recording: "Recording") -> bytes | None:
    """Ask the control plane of the profile, if there is one: a person's right."""
    from client.profile import ProfileError
    from client.replay_code import fetched

    try:
        profile = connections.profile()
    except ProfileError:
        return None
    note("the module is not on this machine; asking the control plane")
    with connections.admin_channel(profile) as channel:
        return fetched(channel, recording)


def _show(found: "Replay") -> None:
    recording = found.recording
    provenance = recording.provenance
    ended = "OK" if recording.end.kind is None else str(recording.end.kind)
    click.echo(
        f"{provenance.template}  invocation {provenance.invocation_id}  {provenance.started}  ended {ended}\n"
        f"host calls  {found.calls} of {len(recording.calls)} answered as recorded"
    )
    if found.outcome is not None and found.fuel_is_compared:
        click.echo(f"fuel        recorded {recording.end.fuel:,}  replayed {found.outcome.usage.fuel:,}")
    if found.is_identical:
        click.echo("identical, as far as it was recorded" if found.ended_early else "identical")
        return
    fail_line(f"it went another way; first at {found.differences[0]}")
    for each in found.differences[1:]:
        note(f"  also: {each}")
    if found.output is not None:
        note(f"it answered: {found.output[:OUTPUT_SHOWN_MAX]}")
