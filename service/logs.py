"""Structured logs: JSON lines on stderr in servers, readable lines on a terminal; secrets are scrubbed by key name."""

from enum import StrEnum, unique
from typing import TextIO

import structlog


@unique
class LogFormat(StrEnum):
    """AUTO is CONSOLE on a terminal and JSON elsewhere."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


@unique
class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def configure(
    *, level: LogLevel = LogLevel.INFO, format: LogFormat = LogFormat.AUTO, stream: TextIO | None = None
) -> None:  # noqa: A002
    """Set up logging for this process, once, in main."""
    raise NotImplementedError


def get_logger(component: str) -> structlog.typing.FilteringBoundLogger:
    """Return the logger of one component; its lines carry ``component``."""
    raise NotImplementedError
