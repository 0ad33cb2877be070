"""agentctl agent: create, invoke, list, show and delete agents."""

import json
import time
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from client.agentctl import connections
from client.agentctl.commands.recording import download_recording
from client.agentctl.inputs import read_input, read_object, read_passphrase
from client.agentctl.output import bullet_lines, emit, emit_table, is_json, note, printable

if TYPE_CHECKING:
    from client.agent_factory import AgentFactory
    from client.values import Answer, Limits, Receipt, Usage

_AMOUNT_MAX: Final = 2**63 - 1
_COUNT_MAX: Final = 2**31 - 1
_COUNTS: Final = frozenset({"wall_ms", "host_calls", "child_invocations"})
_DIGITS_MAX: Final = 19


@click.group()
def agent() -> None:
    """Agents: named instances of templates, with configuration and state."""


@agent.command()
@click.argument("template")
@click.option("--suffix", default="", help="Ends the agent's id; the node chooses one without it.")
@click.option("--config", default="{}", help="JSON object, @file or -.")
@click.option("--limit", "limits", multiple=True, metavar="NAME=AMOUNT", help="Ceiling for each invocation; repeat.")
@click.option("--node", default="", help="Node to create it on; any by default.")
def create(template: str, suffix: str, config: str, limits: tuple[str, ...], node: str) -> None:
    """Create an agent of TEMPLATE (domain/name, or a bare name)."""
    value = read_object(config, option="--config")
    found = connections.profile()
    if node and node not in found.nodes:
        raise click.BadParameter(
            f"expected one of the profile's nodes ({', '.join(sorted(found.nodes))}), got {node!r}", param_hint="--node"
        )
    with connections.agent_factory(found) as factory:
        made = factory.create_agent(
            template, suffix, value, limits=_limits(limits), address=found.nodes[node] if node else None
        )
    emit(made.record.to_json(), text=made.name)


@agent.command()
@click.argument("target")
@click.argument("text", metavar="INPUT")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    help="Seconds until the call is given up.",
)
@click.option("--fuel", type=click.IntRange(0, 2**63 - 1), default=0, help="Narrow the fuel further; 0 does not.")
@click.option("--wall-ms", type=click.IntRange(0, 2**31 - 1), default=0, help="Narrow the time further; 0 does not.")
@click.option("--stream", is_flag=True, help="Show log lines while the agent runs.")
@click.option(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Have it recorded, and keep the recording in this file (mode 0600).",
)
@click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=None,
    help="Encrypts the recording.",
)
@click.option("--limit", "amounts", multiple=True, metavar="NAME=AMOUNT", help="Narrow any limit further; repeat.")
@click.option(
    "--receipt",
    "receipt_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Write the signed receipt here, of a failed invocation too.",
)
def invoke(
    target: str,
    text: str,
    timeout_s: float,
    fuel: int,
    wall_ms: int,
    stream: bool,  # noqa: FBT001
    record: Path | None,
    passphrase_file: Path | None,
    amounts: tuple[str, ...],
    receipt_file: Path | None,
) -> None:
    """Run TARGET once on INPUT (text, @file or -).

    TARGET is an agent's name (nodes/…/agents/…) or a template (domain/name), which needs no agent.
    """
    from client.receipts import receipt_of_error
    from client.values import Answer
    from service.status import RemoteError

    limits = replace(_limits(amounts), **{name: one for name, one in (("fuel", fuel), ("wall_ms", wall_ms)) if one})
    data, passphrase = read_input(text), read_passphrase(passphrase_file)
    with connections.agent_factory(connections.profile()) as factory:
        if stream:
            call: Callable[..., Answer] = partial(_streamed, factory)
        else:
            call = factory.invoke if target.startswith("nodes/") else factory.invoke_template
        try:
            answer = call(target, data, limits=limits, record=record is not None, timeout_s=timeout_s)
        except RemoteError as error:
            failed = receipt_of_error(error)
            if receipt_file is not None and failed is not None:
                receipt_file.write_bytes(factory.receipt_file(failed))
            if record is not None and (invocation := error.metadata.get("invocation")):
                try:
                    download_recording(factory, invocation, record, passphrase=passphrase)
                except RemoteError as second:
                    note(f"no recording: {second.message}")
            raise
        if is_json():
            emit({"output": answer.output, "receipt": answer.receipt.to_json()})
        else:
            click.echo(printable(answer.output))
            note(receipt_text(answer.receipt))
        # Only now: a file that cannot be written must not cost an answer that was paid for.
        if receipt_file is not None:
            receipt_file.write_bytes(factory.receipt_file(answer.receipt))
        if record is not None:
            download_recording(factory, answer.receipt.invocation_id, record, passphrase=passphrase)


def _streamed(factory: "AgentFactory", target: str, data: str, **options: Any) -> "Answer":
    """Show log lines as they come and return the answer."""
    from client.values import Answer

    for event in factory.stream(target, data, **options):
        if isinstance(event, Answer):
            return event
        note(f"[{event.at_ms:8.1f} ms] {event.level}: {event.message}")
    raise click.ClickException("the stream ended without an answer")


def _limits(texts: tuple[str, ...]) -> "Limits":
    from client.values import Limits

    names = {field.name for field in fields(Limits)}
    amounts: dict[str, int] = {}
    for text in texts:
        name, _, amount = text.partition("=")
        if amount.isdecimal() and len(amount) <= _DIGITS_MAX and not int(amount):
            raise click.BadParameter(f"expected an amount from 1 (0 is no limit at all), got {text!r}")
        if name not in names or not amount.isdecimal():
            raise click.BadParameter(f"expected NAME=AMOUNT with one of {', '.join(sorted(names))}, got {text!r}")
        most = _COUNT_MAX if name in _COUNTS else _AMOUNT_MAX
        if len(amount) > _DIGITS_MAX or int(amount) > most:
            raise click.BadParameter(f"expected {name} of at most {most}, got {text[:80]!r}")
        amounts[name] = int(amount)
    return Limits(**amounts)


def receipt_text(receipt: "Receipt") -> str:
    """Return a receipt as lines for people."""
    usage = receipt.usage
    return "\n".join(
        (
            f"receipt {receipt.invocation_id}",
            bullet_lines(
                (
                    f"{receipt.template} on {receipt.node}, generation {receipt.generation}",
                    f"fuel {usage.fuel:,}  time {usage.wall_ms:.1f} ms (guest {usage.guest_ms:.1f} ms)",
                    f"host calls {usage.host_calls}  children {usage.child_invocations}",
                    f"bytes in {usage.input_bytes:,}  out {usage.output_bytes:,}  logged {usage.log_bytes:,}",
                    *_grants_text(usage),
                    f"template sha256 {receipt.template_sha256[:16]}…  code {receipt.code_sha256[:16]}…",
                )
            ),
        )
    )


def _grants_text(usage: "Usage") -> tuple[str, ...]:
    """Return what was used through grants, in a line if anything was."""
    found = (
        ("sent", usage.sent_bytes, ""),
        ("received", usage.received_bytes, ""),
        ("tokens", usage.tokens, ""),
        ("cost", usage.cost_microusd, " µUSD"),
        ("files read", usage.file_read_bytes, ""),
        ("files written", usage.file_written_bytes, ""),
    )
    text = "  ".join(f"{name} {amount:,}{unit}" for name, amount, unit in found if amount)
    return (f"through grants: {text}",) if text else ()


@agent.command("list")
@click.option("--template", default="", help="Only agents of this template (domain/name).")
def list_agents(template: str) -> None:
    """List the agents of the caller's tenant on every node."""
    with connections.agent_factory(connections.profile()) as factory:
        rows = [one.record.to_json() for one in factory.list_agents(template=template)]
    emit_table(rows, ("name", "template", "template_version", "created"), empty="no agents")


@agent.command()
@click.argument("name")
def show(name: str) -> None:
    """Show one agent with its configuration."""
    with connections.agent_factory(connections.profile()) as factory:
        record = factory.get_agent(name).record.to_json()
    emit(record, text=json.dumps(record, indent=2, ensure_ascii=False))


@agent.command()
@click.argument("names", nargs=-1, required=True)
def delete(names: tuple[str, ...]) -> None:
    """Delete agents and their state."""
    started = time.monotonic()
    with connections.agent_factory(connections.profile()) as factory:
        for name in names:
            factory.delete_agent(name)
    note(f"{len(names)} deleted in {time.monotonic() - started:.2f} s")
