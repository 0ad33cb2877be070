"""agentctl doctor: what is wrong here, and how to mend it."""

from datetime import UTC, datetime

import click

from client.agentctl import connections
from client.agentctl.exit_codes import ExitCode
from client.agentctl.output import emit, is_json, printable

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command()
def doctor() -> None:
    """Check this machine, the profile and every server of it; exit 1 when something needs mending."""
    from client.diagnosis import diagnose

    findings = list(diagnose(connections.directory(), now=datetime.now(UTC)))
    if is_json():
        emit([one.to_json() for one in findings])
    else:
        for one in findings:
            click.echo(
                click.style(f"{one.severity:8}", fg=_COLOURS[one.severity]) + printable(f" {one.subject}: {one.text}")
            )
            if one.remedy:
                click.echo(printable(f"           → {one.remedy}"))
    if any(one.severity == "problem" for one in findings):
        raise click.exceptions.Exit(ExitCode.FINDINGS)
