"""Structured logs: JSON lines on stderr in servers, readable lines on a terminal; secrets are scrubbed by key name.

An event is a constant in snake_case, past tense (`class Event` of the module that logs it); all data stands in fields,
named by `service.telemetry.Field`. Whatever a value holds, a line stays one line: JSON escapes control characters, and
so does the console renderer here.
"""

import json
import logging
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from enum import StrEnum, unique
from functools import lru_cache
from types import NoneType
from typing import Any, Final, Self, TextIO

import structlog

from service.telemetry import Field, current_trace_id

SCRUBBED: Final = "[scrubbed]"
VALUE_CHARACTERS_MAX: Final = 2048
AT_NS: Final = "at_ns"

_SECRET_KEY: Final = re.compile(
    r"passphrase|password|passwd|secret|token(?!s)|api_?key|authorization|cookie|private_?key|credential", re.IGNORECASE
)


_PLAIN: Final = frozenset({int, float, bool, NoneType})
_CONTAINERS: Final = (dict, list, tuple, set, frozenset, Mapping)


@unique
class LogFormat(StrEnum):
    """AUTO is CONSOLE on a terminal and JSON elsewhere."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


@unique
class LogLevel(StrEnum):
    """Least level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def configure_logs(
    *, level: LogLevel = LogLevel.INFO, form: LogFormat = LogFormat.AUTO, stream: TextIO | None = None
) -> None:
    """Set up logging for this process, once, in main; libraries' own records (``logging``) join in from WARNING on."""
    out = sys.stderr if stream is None else stream
    console = form is LogFormat.CONSOLE or (form is LogFormat.AUTO and out.isatty())
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _stamp,
            _add_trace,
            _exception_without_locals,
            scrub,
            _render_console if console else _render_json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=_Lines(out, threshold),
        cache_logger_on_first_use=True,
    )
    handler = _LibraryHandler(level=max(threshold, logging.WARNING))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(handler.level)


@contextmanager
def gathered_lines() -> Iterator[None]:
    """Write what is logged within the block in one piece at its end. Not for blocks that await."""
    lines = structlog.get_config()["logger_factory"]
    if not isinstance(lines, _Lines):
        yield
        return
    lines.hold()
    try:
        yield
    finally:
        lines.release()


def get_logger(component: str) -> structlog.typing.FilteringBoundLogger:
    """Return the logger of one component; its lines carry ``component``."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(**{Field.COMPONENT: component})
    return logger


class FrequentEvent:
    """An event that every call logs, at INFO: lines as a logger writes them, with what they share encoded once."""

    def __init__(self, component: str, event: str) -> None:
        self._logger = get_logger(component)
        self._component = component
        self._end = f'"event":{_encode(event)},"level":"info","timestamp":"'
        self._event = event

    def log(self, *facts: tuple[str, str], amount: tuple[str, float], at_ns: int) -> None:
        """Log one line; ``facts`` are few and return, ``amount`` is another one each time."""
        now = structlog.get_config()
        lines = now["logger_factory"]
        if not isinstance(lines, _Lines) or now["processors"][-1] is not _render_json or current_trace_id():
            self._logger.info(self._event, **dict(facts), **{amount[0]: amount[1], AT_NS: at_ns})
        elif lines.threshold <= logging.INFO:
            common = _encoded((Field.COMPONENT, self._component), *facts)
            lines.msg(f'{common},"{amount[0]}":{amount[1]!r},{self._end}{_time_text(at_ns)}"}}')


@lru_cache(maxsize=4096)
def _encoded(*facts: tuple[str, str]) -> str:
    return _encode(scrub(None, "", dict(facts)))[:-1]


def scrub(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace what stands under a secret's name, at any depth, and cut what is long."""
    for key, value in line.items():
        if is_secret_name(key):
            line[key] = SCRUBBED
            continue
        kind = type(value)
        if kind in _PLAIN:
            continue
        if isinstance(value, str):
            if len(value) > VALUE_CHARACTERS_MAX and key != "exception":
                line[key] = value[:VALUE_CHARACTERS_MAX] + "…"
        elif isinstance(value, _CONTAINERS):
            line[key] = _scrubbed(value)
    return line


@lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    """Return whether a field of this name must not be shown."""
    return _SECRET_KEY.search(name) is not None


def _scrubbed(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: SCRUBBED if is_secret_name(str(key)) else _scrubbed(each) for key, each in value.items()}
    if isinstance(value, _CONTAINERS):
        return [_scrubbed(each) for each in value]
    return value


class _Lines:
    """Where lines go, and what structlog asks for a logger; threads may write at the same time."""

    def __init__(self, out: TextIO, threshold: int) -> None:
        self.threshold = threshold
        self._out = out
        self._held: list[str] | None = None
        self._turn = threading.Lock()

    def __call__(self, *_args: object) -> Self:
        return self

    def msg(self, line: str) -> None:
        with self._turn:
            if self._held is None:
                self._out.write(line + "\n")
                self._out.flush()
            else:
                self._held.append(line)

    log = debug = info = warning = error = critical = msg

    def hold(self) -> None:
        with self._turn:
            self._held = []

    def release(self) -> None:
        with self._turn:
            held, self._held = self._held, None
            if held:
                self._out.write("\n".join(held) + "\n")
                self._out.flush()


def _stamp(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add ``timestamp``. A line that is written later than it was due brings ``at_ns``, nanoseconds since the epoch."""
    line["timestamp"] = _time_text(line.pop(AT_NS, None) or time.time_ns())
    return line


def _time_text(at_ns: int) -> str:
    """Return a time in RFC 3339, UTC, with milliseconds."""
    second, milliseconds = divmod(at_ns // 1_000_000, 1000)
    return f"{_second_text(second)}.{milliseconds:03d}Z"


@lru_cache(maxsize=16)
def _second_text(second: int) -> str:
    """The calendar is asked once a second, not once a line."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _add_trace(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Join the line to the trace that it belongs to, if it belongs to one."""
    if trace_id := current_trace_id():
        line.setdefault(Field.TRACE_ID, trace_id)
    return line


def _exception_without_locals(
    logger: Any, method: str, line: MutableMapping[str, Any]
) -> Mapping[str, Any] | str | bytes | bytearray | tuple[Any, ...]:
    return structlog.processors.format_exc_info(logger, method, line) if "exc_info" in line else line


def _render_json(_logger: object, _method: str, line: MutableMapping[str, Any]) -> str:
    return _encode(line)


# ASCII only: a C1 control character or U+2028 in a value is a line break, or worse, to some reader.
_encode: Final = json.JSONEncoder(default=str, separators=(",", ":")).encode


def _render_console(_logger: object, _method: str, line: MutableMapping[str, Any]) -> str:
    exception = line.pop("exception", None)
    head = f"{line.pop('timestamp', '')[11:23]} {line.pop('level', ''):7} {line.pop('event', '')}"
    fields = " ".join(f"{key}={_one_line(value)}" for key, value in line.items())
    return f"{head} {fields}" + (f"\n{exception}" if exception else "")


def _one_line(value: object) -> str:
    text = str(value)
    return text if text.isprintable() and " " not in text and text else json.dumps(text)


class _LibraryHandler(logging.Handler):
    """Gives the records of libraries (grpc, asyncio, tuf) the same shape."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = structlog.get_logger(**{Field.COMPONENT: record.name})
        logger.log(record.levelno, "library_logged", message=record.getMessage(), exc_info=record.exc_info or None)
