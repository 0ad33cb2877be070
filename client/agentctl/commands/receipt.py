"""agentctl receipt: what a node attested about an invocation, verified without it."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from client.agentctl import connections
from client.agentctl.inputs import read_file_argument, read_input
from client.agentctl.output import bullet_lines, emit

if TYPE_CHECKING:
    from client.profile import Profile
    from templates.receipt import Receipt


@click.group()
def receipt() -> None:
    """Receipts: signed statements of nodes about what ran and what it cost."""


@receipt.command()
@click.argument("file", metavar="FILE")
@click.option("--input", "input_", default=None, help="What was asked (text, @file or -): must be what it speaks of.")
@click.option("--output", default=None, help="What was answered (text, @file or -): must be what it speaks of.")
@click.option(
    "--trust",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=None,
    help="PEM file of the authorities to trust; by default the profile's.",
)
def verify(file: str, input_: str | None, output: str | None, trust: Path | None) -> None:
    """Verify the receipt in FILE (- for standard input), offline; exit 8 when it is not to be trusted."""
    from client.receipts import verify_receipt

    if [file, input_, output].count("-") > 1:
        raise click.BadParameter("expected standard input to be used once")
    _, data = read_file_argument(file)
    found = verify_receipt(
        data,
        authorities=trust or _authorities(connections.profile()),
        input=None if input_ is None else read_input(input_),
        output=None if output is None else read_input(output),
    )
    checked = [name for name, given in (("input", input_), ("output", output)) if given is not None]
    value = {**asdict(found), "started": found.started.isoformat(), "checked": checked}
    emit(value, text=_text(found, checked))


def _authorities(found: "Profile") -> Path:
    return found.tls(found.service or found.person).authorities


def _text(found: "Receipt", checked: list[str]) -> str:
    usage = found.usage
    spoken = f"{' and '.join(checked)} as given" if checked else "input and output not compared"
    return "\n".join(
        (
            f"receipt {found.invocation} verified: {found.outcome}, {spoken}",
            bullet_lines(
                (
                    f"{found.template} on {found.node}, generation {found.generation}, {found.started.isoformat()}",
                    f"asked by {found.caller}",
                    f"template {found.template_sha256}",
                    f"code     {found.code_sha256}",
                    *((f"image    {found.image_sha256}",) if found.image_sha256 else ()),
                    f"config   {found.config_sha256}",
                    *(f"{name:18} {amount:,}" for name, amount in usage.items()),
                )
            ),
        )
    )
