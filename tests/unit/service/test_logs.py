import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from service.logs import (
    AT_NS,
    FrequentEvent,
    LogFormat,
    LogLevel,
    configure_logs,
    gathered_lines,
    get_logger,
    is_secret_name,
    scrub,
)
from service.telemetry import continued

SECRET = "hunter2-do-not-tell"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = before, level
    structlog.reset_defaults()


def logged(form: LogFormat = LogFormat.JSON, level: LogLevel = LogLevel.INFO) -> io.StringIO:
    stream = io.StringIO()
    configure_logs(level=level, form=form, stream=stream)
    return stream


def test_a_line_is_one_json_object_with_event_level_time_and_component() -> None:
    stream = logged()
    get_logger("test").info("snapshot_activated", generation=7, took_s=0.031)
    line = json.loads(stream.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "component": "test",
        "event": "snapshot_activated",
        "generation": 7,
        "level": "info",
        "took_s": 0.031,
    }


def test_a_line_within_a_trace_carries_its_id() -> None:
    stream = logged()
    log = get_logger("test")
    with continued(f"00-{'a' * 32}-{'b' * 16}-01"):
        log.info("within")
        log.info("of_another", trace_id="c" * 32)
    log.info("without")
    within, other, without = (json.loads(line) for line in stream.getvalue().splitlines())
    assert within["trace_id"] == "a" * 32
    assert other["trace_id"] == "c" * 32
    assert "trace_id" not in without


@pytest.mark.parametrize("form", [LogFormat.JSON, LogFormat.CONSOLE])
@pytest.mark.parametrize("level", [LogLevel.DEBUG, LogLevel.INFO, LogLevel.WARNING])
@pytest.mark.parametrize("traceparent", ["", f"00-{'a' * 32}-{'b' * 16}-01"])
@given(
    facts=st.dictionaries(st.sampled_from(["method", "peer", "code", "api_token"]), st.text(max_size=3_000)),
    amount=st.floats(0, 100) | st.integers(0, 10**6),
)
def test_a_frequent_event_is_the_line_that_a_logger_writes(
    form: LogFormat, level: LogLevel, traceparent: str, facts: dict[str, str], amount: float
) -> None:
    with continued(traceparent):
        expected = logged(form, level)
        get_logger("rpc").info("answered", **facts, took_s=amount, **{AT_NS: 1_795_000_000_123_456_789})
        stream = logged(form, level)
        FrequentEvent("rpc", "answered").log(*facts.items(), amount=("took_s", amount), at_ns=1_795_000_000_123_456_789)
    assert stream.getvalue() == expected.getvalue()


def test_gathered_lines_are_written_in_one_piece_with_the_times_they_bring() -> None:
    written: list[str] = []

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    configure_logs(form=LogFormat.JSON, stream=Stream())
    log = get_logger("test")
    with gathered_lines():
        log.info("first", at_ns=1_700_000_000_123_000_000)
        log.info("second")
        assert written == []
    log.info("third")
    gathered, third = written
    first, second = map(json.loads, gathered.splitlines())
    assert (first["event"], first["timestamp"]) == ("first", "2023-11-14T22:13:20.123Z")
    assert "at_ns" not in first
    assert (second["event"], json.loads(third)["event"]) == ("second", "third")


def test_lines_below_the_level_are_not_written() -> None:
    stream = logged(level=LogLevel.WARNING)
    log = get_logger("test")
    log.info("not_written")
    log.warning("written")
    assert "not_written" not in stream.getvalue()
    assert "written" in stream.getvalue()


@pytest.mark.parametrize(
    "name",
    ["passphrase", "PASSWORD", "db_password", "secret", "token", "api_key", "apikey", "Authorization", "private_key"],
)
@pytest.mark.parametrize("form", [LogFormat.JSON, LogFormat.CONSOLE])
def test_what_stands_under_a_secrets_name_is_not_written(name: str, form: LogFormat) -> None:
    stream = logged(form)
    get_logger("test").info("happened", **{name: SECRET}, nested={"deep": [{name: SECRET}]})
    assert SECRET not in stream.getvalue()
    assert "[scrubbed]" in stream.getvalue()


@pytest.mark.parametrize("name", ["method", "peer", "reason", "digest", "key", "keyid", "tokens_max", "took_s"])
def test_ordinary_names_are_written(name: str) -> None:
    assert not is_secret_name(name)


@given(st.text(), st.sampled_from([LogFormat.JSON, LogFormat.CONSOLE]))
def test_a_line_stays_a_line_whatever_a_value_holds(text: str, form: LogFormat) -> None:
    stream = logged(form)
    get_logger("test").info("happened", value=text)
    written = stream.getvalue()
    assert written.endswith("\n")
    body = written[:-1]
    assert body.isprintable()


def test_long_values_are_cut() -> None:
    line = scrub(None, "info", {"value": "x" * 10_000})
    assert len(line["value"]) == 2049


def test_values_that_json_does_not_know_are_written_as_text() -> None:
    stream = logged()
    get_logger("test").info("happened", path=LogLevel, names={"a"}, nothing=None)
    assert json.loads(stream.getvalue())["nothing"] is None


def test_a_traceback_has_no_local_variables() -> None:
    stream = logged()
    password = SECRET  # noqa: F841 -- a local that must not be shown
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        get_logger("test").exception("failed")
    assert "ZeroDivisionError" in stream.getvalue()
    assert stream.getvalue().count("\n") == 1
    assert SECRET not in stream.getvalue()


def test_libraries_records_have_the_same_shape() -> None:
    stream = logged()
    logging.getLogger("somebody.else").warning("odd %s", "thing")
    logging.getLogger("somebody.else").info("not_written")
    line = json.loads(stream.getvalue())
    assert (line["component"], line["event"], line["message"]) == ("somebody.else", "library_logged", "odd thing")


def test_console_lines_are_readable() -> None:
    stream = logged(LogFormat.CONSOLE)
    get_logger("test").info("started", port=7443, note="two words")
    assert stream.getvalue().endswith('info    started component=test port=7443 note="two words"\n')
    get_logger("test").error("failed", exc_info=ValueError("x"))
    assert "\nValueError: x" in stream.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_auto_follows_the_stream() -> None:
    for stream, is_json in ((io.StringIO(), True), (Terminal(), False)):
        configure_logs(form=LogFormat.AUTO, stream=stream)
        get_logger("test").info("happened")
        assert stream.getvalue().startswith("{") is is_json
