"""Input from an argument, a file (``@file``) or standard input (``-``)."""

import sys
from pathlib import Path
from typing import Any, Final

import click

OBJECT_BYTES_MAX: Final = 1 << 20
OBJECT_DEPTH_MAX: Final = 64


def read_input(text: str) -> str:
    """Return ``text``, the content of ``@file``, or standard input for ``-``.

    Raises:
        click.BadParameter: the file cannot be read or is not UTF-8.
    """
    try:
        if text == "-":
            return sys.stdin.buffer.read().decode()
        if text.startswith("@"):
            return Path(text[1:]).read_bytes().decode()
    except OSError as error:
        raise click.BadParameter(f"cannot read {text}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise click.BadParameter(
            f"expected UTF-8 in {text}, got byte {error.object[error.start]:#04x} at {error.start}"
        ) from error
    return text


def read_file_argument(path: str) -> tuple[str, bytes]:
    """Return a name for messages and the bytes of the file ``path``, or of standard input for ``-``.

    Raises:
        click.BadParameter: the file cannot be read.
    """
    if path == "-":
        return "<stdin>", sys.stdin.buffer.read()
    try:
        return path, Path(path).read_bytes()
    except OSError as error:
        raise click.BadParameter(f"cannot read {path}: {error.strerror}") from error


def read_object(text: str, *, option: str) -> dict[str, Any]:
    """Return the JSON object that ``text`` (an argument, ``@file`` or ``-``) holds.

    Raises:
        click.BadParameter: not JSON as strict as a node reads it (a key given twice, NaN), or another value.
    """
    from templates.problems import InvalidDocumentError
    from templates.strict_json import loads

    try:
        value = loads(read_input(text).encode(), bytes_max=OBJECT_BYTES_MAX, depth_max=OBJECT_DEPTH_MAX)
    except InvalidDocumentError as error:
        raise click.BadParameter(f"expected a JSON object: {error.message}", param_hint=option) from error
    if not isinstance(value, dict):
        raise click.BadParameter(f"expected a JSON object, got {type(value).__name__}", param_hint=option)
    return value


def read_passphrase(file: Path | None) -> bytes | None:
    """Return the passphrase in ``file``, None without one.

    Raises:
        PassphraseError, ExposedFileError: it cannot be used.
    """
    if file is None:
        return None
    from service.keystore import passphrase_from

    return passphrase_from(value=None, file=file)


def require_terminal() -> None:
    """Raise `click.UsageError` where nobody can be asked: the question would read a script's input, or none."""
    if sys.stdin is None or sys.stdin.closed or not sys.stdin.isatty():
        raise click.UsageError("this asks before it acts: it needs a terminal or --yes")


def read_pairs(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """Return the pairs of a repeated option NAME=VALUE; the last ``=`` divides."""
    pairs = tuple((name, value) for name, _, value in (each.rpartition("=") for each in values))
    if not all(name and value for name, value in pairs):
        raise click.BadParameter(f"expected NAME=VALUE, got {' '.join(values)}")
    return pairs
