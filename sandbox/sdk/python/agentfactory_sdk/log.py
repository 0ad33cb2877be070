"""Lines for the invocation's log, which its owner reads with ``agentctl invocation logs``.

``print`` goes there too (as level ``info``, standard error as ``warning``); use these for a level and for fields:

    >>> from agentfactory_sdk import log
    >>> log.info("outline found", headings=12, title="A title")

writes the line ``outline found headings=12 title="A title"``.
"""

import json

from . import _host


def debug(message: str, **fields: object) -> None:
    """For the author."""
    _write("debug", message, fields)


def info(message: str, **fields: object) -> None:
    """One line per unit of work."""
    _write("info", message, fields)


def warning(message: str, **fields: object) -> None:
    """Something was odd and the agent went on."""
    _write("warning", message, fields)


def error(message: str, **fields: object) -> None:
    """Something failed; the answer says so too."""
    _write("error", message, fields)


def _write(level: str, message: str, fields: dict[str, object]) -> None:
    text = str(message)
    if fields:
        text += "".join(f" {name}={_field(value)}" for name, value in fields.items())
    _host.current().log(level, text.encode("utf-8", "backslashreplace").decode("utf-8"))


def _field(value: object) -> str:
    if isinstance(value, str) and value.isidentifier():
        return value
    return json.dumps(value, ensure_ascii=False, default=str)
