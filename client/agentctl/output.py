"""Data on stdout as a table or as JSON; everything else on stderr, with colours on a terminal only."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

LOG_CUT = "the log was cut (limits: 16,384 bytes a line, log_bytes in all)"

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in {0x09, 0x0A}}
# What is invisible, or makes text read otherwise than it runs (CVE-2021-42574): reviewers read source here.
_DECEPTIVE = {
    code: f"\\u{{{code:04x}}}"
    for code in (
        *(0x061C, 0x180E, 0x200B, 0x200E, 0x200F, 0xFEFF),
        *range(0x2028, 0x202F),
        *range(0x2060, 0x2070),
        *range(0xFFF9, 0xFFFC),
        *range(0xE0000, 0xE0080),
    )
}
_SHOWN = _CONTROL | _DECEPTIVE
_JSON_SHOWN = {
    code: json.dumps(chr(code))[1:-1] for code in (*range(0x7F, 0xA0), *_DECEPTIVE) if code > 0x7F
} | {0x7F: "\\u007f"}  # fmt: skip


def printable(text: str) -> str:
    """``text`` with controls and deceptive characters escaped: it neither steers a terminal nor hides what it says."""
    return text.translate(_SHOWN)


def is_json() -> bool:
    """Whether the user asked for ``-o json``."""
    context = click.get_current_context(silent=True)
    return bool(context and context.find_root().params.get("output") == "json")


def emit(value: Json, *, text: str | None = None) -> None:
    """Print ``value`` as JSON, or ``text`` where the user wants to read."""
    if is_json() or text is None:
        text = json.dumps(value, ensure_ascii=False, indent=None if not sys.stdout.isatty() else 2)
        click.echo(text.translate(_JSON_SHOWN))  # still the same JSON: these stand inside strings
    else:
        click.echo(printable(text))


def emit_table(rows: Sequence[Mapping[str, Json]], columns: Sequence[str], *, empty: str = "none") -> None:
    """Print ``rows`` aligned under ``columns``, or as a JSON array."""
    if is_json():
        emit(list(rows))
        return
    if not rows:
        note(empty)
        return
    cells = [[column.upper().replace("_", " ") for column in columns]]
    cells += [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Json) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return printable(value.replace("\n", " "))
    if isinstance(value, Sequence):
        return ", ".join(_cell(one) for one in value) or "-"
    return str(value)


def note(message: str) -> None:
    """Tell the person something that is not data."""
    click.echo(printable(message), err=True)


def warn(message: str) -> None:
    """Tell the person something that may matter."""
    click.secho(f"warning: {printable(message)}", err=True, fg="yellow")


def fail_line(message: str) -> None:
    """Say what went wrong."""
    click.secho(f"error: {printable(message)}", err=True, fg="red")


@contextmanager
def progress(message: str) -> "Iterator[None]":
    """Show that something takes its time; on a terminal the line is replaced when it is done."""
    terminal = sys.stderr.isatty()
    click.echo(f"{message} …", err=True, nl=not terminal)
    try:
        yield
    except BaseException:
        if terminal:
            click.echo(" failed", err=True)
        raise
    if terminal:
        click.echo(" done", err=True)


def bullet_lines(lines: Iterable[str], *, indent: str = "  ") -> str:
    """``lines`` below each other, indented."""
    return "\n".join(f"{indent}{line}" for line in lines)
